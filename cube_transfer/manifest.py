"""`_manifest.json`, the list of a directory's files that its writer vouches for."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from cube_core.errors import DeployError

MANIFEST_NAME = "_manifest.json"


def _file_name(name: str) -> str:
    if not name or "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        raise ValueError("is no plain file name")
    return name


class ManifestFile(BaseModel):
    """One file of the directory, with what its writer says of it; `md5` is in hexadecimal."""

    name: Annotated[str, AfterValidator(_file_name)]
    size: int | None = Field(default=None, ge=0)
    crc32c: int | None = Field(default=None, ge=0, le=0xFFFFFFFF)
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None

    @property
    def has_checksum(self) -> bool:
        return self.crc32c is not None or self.md5 is not None


class Manifest(BaseModel):
    """All files of the directory."""

    files: tuple[ManifestFile, ...]


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Reads the JSON of a manifest.

    Raises:
        DeployError: names `where`, the field, and what is wrong.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DeployError(f"{where}: {field}: {first['msg']}") from error
    names = [file.name for file in manifest.files]
    if len(set(names)) != len(names):
        raise DeployError(f"{where}: files: a name is listed twice")
    if not names:
        raise DeployError(f"{where}: files: names no file")
    return manifest
