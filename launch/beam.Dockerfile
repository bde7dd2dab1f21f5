# SPDX-License-Identifier: Apache-2.0
# The image of Beam's workers, of the Python that launches: docker build -f launch/beam.Dockerfile --build-arg PYTHON=3.11 -t IMAGE .
ARG PYTHON=3.11
FROM apache/beam_python${PYTHON}_sdk:2.77.0
COPY . /mlm_jax
RUN VENV=/usr/local bash /mlm_jax/launch/beam.sh install curate
