"""Files for batches: taken in while they arrive, however large, and kept until they are deleted."""

import asyncio
import os
import time
from pathlib import Path as FilePath
from typing import Annotated, Any, BinaryIO
from uuid import uuid4

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse

from snapjudge.core.later import FileList, StoredFile
from snapjudge.errors import EngineBusy, NotFound, RunConflict
from snapjudge.serve.bodies import answered
from snapjudge.serve.deferred.observations import at
from snapjudge.serve.service import deferred_of, service_of
from snapjudge.serve.unpacking import too_large
from snapjudge.store.files import storage_errors
from snapjudge.store.records import batches

router = APIRouter(tags=["later"])
FileName = Annotated[str, Path(max_length=80)]
LISTED = 1000
_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


@router.post("/v1/files", response_model=StoredFile, status_code=201, openapi_extra=_BODY, summary="Store a file")
async def store_file(request: Request, name: Annotated[str, Query(max_length=200, description="its ending says how it is read")] = "data.jsonl") -> Response:
    """The body is the file, as it is: `curl --data-binary @traffic.jsonl`."""
    deferred, caller = await deferred_of(request)
    service = service_of(request)
    bounds = service.settings.bounds
    if len(await deferred.database.read(lambda connection: batches.newest_files(connection, caller.name, bounds.files))) >= bounds.files:
        raise EngineBusy(f"{bounds.files} files are stored, the most for one key", hint="DELETE /v1/files/{file} makes room", retry_after=60.0)
    number = f"file_{uuid4().hex}"
    path = deferred.batches.file(number, name)
    part = path.with_name(f".{path.name}.part")
    try:
        size = await _received(request, part, bounds.file_bytes)
        with storage_errors(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    now = time.time()
    await deferred.database.write(lambda connection: batches.add_file(connection, number, caller.name, name, size, now))
    return answered(StoredFile(file=number, name=name, bytes=size, made_at=at(now)), status=201)


@router.get("/v1/files", response_model=FileList, summary="Stored files, the newest first")
async def list_files(request: Request) -> Response:
    """All of this key."""
    deferred, caller = await deferred_of(request)
    rows = await deferred.database.read(lambda connection: batches.newest_files(connection, caller.name, LISTED))
    return answered(FileList(files=tuple(StoredFile(file=row.id, name=row.name, bytes=row.bytes, made_at=at(row.made_at)) for row in rows)))


@router.get("/v1/files/{file}", summary="A stored file as it is", response_class=FileResponse)
async def read_file(request: Request, file: FileName) -> Response:
    """Its content."""
    row, path = await _found(request, file)
    return FileResponse(path, media_type="application/octet-stream", filename=FilePath(row.name).name or "data")


@router.delete("/v1/files/{file}", status_code=204, summary="Delete a stored file")
async def delete_file(request: Request, file: FileName) -> Response:
    """Unless a batch that has not ended, or a schedule, still reads it."""
    _, path = await _found(request, file)
    deferred, _ = await deferred_of(request)
    if await deferred.database.read(lambda connection: batches.uses_of(connection, file)):
        raise RunConflict(f"{file} is still read by a batch or a schedule", hint="cancel it, or wait until it has ended", received=file)
    await deferred.database.write(lambda connection: batches.drop_file(connection, file))
    path.unlink(missing_ok=True)
    return Response(status_code=204)


async def _found(request: Request, file: str) -> tuple[Any, FilePath]:
    deferred, caller = await deferred_of(request)
    row = await deferred.database.read(lambda connection: batches.find_file(connection, caller.name, file))
    if row is None:
        raise NotFound(f"no file {file!r}", hint="GET /v1/files lists them", received=file)
    return row, deferred.batches.file(row.id, row.name)


async def _received(request: Request, path: FilePath, most: int) -> int:
    """Write a body down as it arrives; its length."""
    size = 0
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file: BinaryIO
        with path.open("wb") as file:
            try:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > most:
                        raise too_large(most)
                    await asyncio.to_thread(file.write, chunk)
            except ClientDisconnect as error:
                raise ConnectionError from error
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
    return size
