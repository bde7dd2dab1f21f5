# SPDX-License-Identifier: Apache-2.0
"""The Debian handbook, 26 languages of HTML pages that are half translated, as a corpus: two minutes on two cores.

    apt-get download debian-handbook && dpkg-deb -x debian-handbook_*.deb handbook
    mlm-jax curate configs/curate/sample.py

What was never translated is in English on every language's pages; it goes there, and stays once.
"""

from mlm_jax.curate.config import Curate


def get_config() -> Curate:
    return Curate(inputs=("handbook/usr/share/doc/debian-handbook/html/*/*.html",), dropped=5)
