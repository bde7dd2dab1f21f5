# SPDX-License-Identifier: Apache-2.0
"""An exported folder → a repository of the Hugging Face hub."""

from __future__ import annotations

import re

from mlm_jax.errors import UserError

REPOSITORY = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}")


def refuse_repository(repository: str) -> None:
    """Refuse a name that no repository has, and a hub without what uploads to it, before anything is exported.

    Args:
      repository: OWNER/NAME; empty: nothing is asked for.

    Raises:
      UserError: naming the form, or what to install.
    """
    if not repository:
        return
    if not REPOSITORY.fullmatch(repository):
        raise UserError(f"--push: {repository} is not OWNER/NAME, such as me/my-encoder")
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as e:
        raise UserError("--push needs huggingface_hub: pip install -c constraints.txt -e '.[hub]'") from e


def push_folder(folder: str, repository: str) -> str:
    """Upload a folder, whole, as one commit; files of the repository that it has not stay.

    A repository that is not there is made, private.

    Returns:
      What was done, in words, with the commit's address.

    Raises:
      UserError: the hub refused, or was not reached; what was exported is still there.
    """
    from huggingface_hub import HfApi, errors

    refused: type[Exception] = errors.HfHubHTTPError.__mro__[1]  # of its HTTP client, which differs between versions
    api = HfApi()
    try:
        # Whether it is public is its owner's to say: one that is there stays what it is.
        api.create_repo(repository, private=True, exist_ok=True)
        made = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Exported by mlm_jax", ignore_patterns=[".*"]
        )
    except (refused, OSError, ValueError) as e:
        said = " ".join(str(e).split())[:200]
        raise UserError(
            f"--push {repository}: {said or type(e).__name__}; {folder} is exported: log in (hf auth login, or HF_TOKEN), then run: hf upload "
            f"{repository} {folder} ."
        ) from e
    return f"pushed to {made.commit_url}"
