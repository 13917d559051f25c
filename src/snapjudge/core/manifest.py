"""The bundle's manifest: what a judge is made of and the digest of every file. Knows nothing of folders."""

import hashlib

from pydantic import Field

from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import Name

FORMAT = 1


OWN_BACKBONE = "own"  # the name of a backbone that lies in the bundle, in the folder `backbone`
WHOLE = "backbone"  # the scope of a judge that has one


class BackboneId(Frozen):
    """Which backbone an adapter belongs to: the name people gave and the digest that decides."""

    name: str
    digest: str


class Manifest(Frozen):
    """manifest.json of a judge bundle; the format version stands first."""

    format: int = Field(default=FORMAT, le=FORMAT, ge=1)
    name: Name
    version: int = Field(ge=1)
    backbone: BackboneId
    scope: str
    created: str
    snapjudge: str
    revision: str = ""
    files: dict[str, str] = Field(description="path in the bundle -> sha256")
    digest: str = Field(default="", description="sha256 of this manifest without this field")

    def sealed(self) -> "Manifest":
        """The same manifest with its own digest."""
        body = self.model_copy(update={"digest": ""}).model_dump_json()
        return self.model_copy(update={"digest": hashlib.sha256(body.encode()).hexdigest()})

    @property
    def judge(self) -> str:
        """Name and immutable version, as in `tone@3`."""
        return f"{self.name}@{self.version}"
