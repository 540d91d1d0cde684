"""What is pushed comes back in another clone, computes nothing there, and damage on the way is noticed.

Against servers on loopback: a real S3 API (moto) and WebDAV (wsgidav), which the extra ``remotes-test`` brings, and
SFTP: from OpenSSH's own ``sshd`` where it is installed, and from asyncssh, which DVC's SSH client brings, everywhere.
"""

import asyncio
import configparser
import os
import shutil
import socket
import subprocess
import sys
import time
from hashlib import md5
from pathlib import Path
from threading import Thread

import pytest
from imports import ROOT
from processes import PATIENCE_S, completed, output

SECRET = "loopback-secret-4711"
STAGE = """
import pathlib, sys
with open("ran.log", "a") as log:
    log.write("ran\\n")
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True)
for name in ("first", "second"):
    (folder / f"{name}.tar").write_bytes(name.encode() * 500)
"""
PIPELINE = "stages: {work: {cmd: python stage.py data/work, deps: [stage.py], outs: [data/work]}}\n"
SETTINGS = "[core]\n    analytics = false\n    remote = team\n['remote \"team\"']\n    verify = true\n"


class S3:
    """A bucket behind a real S3 API."""

    secret = SECRET

    def __init__(self, folder):
        pytest.importorskip("dvc_s3", reason="`make test-remotes` installs it")
        server = pytest.importorskip("moto.server", reason="`make test-remotes` installs it")
        self.server = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        self.address = "http://{}:{}".format(*self.server.get_host_and_port())
        self.environment = {
            "AWS_ACCESS_KEY_ID": "team",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.settings = f"    url = s3://clips/store\n    endpointurl = {self.address}\n"
        self.client = pytest.importorskip("boto3").client(
            "s3", endpoint_url=self.address, region_name="us-east-1",
            aws_access_key_id="team", aws_secret_access_key=SECRET,
        )  # fmt: skip
        self.client.create_bucket(Bucket="clips")

    def objects(self):
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket="clips").get("Contents", [])]

    def damage(self, name):
        content = self.client.get_object(Bucket="clips", Key=name)["Body"].read()
        self.client.put_object(Bucket="clips", Key=name, Body=b"?" * len(content))

    def close(self):
        self.server.stop()


class WebDav:
    """A folder behind WebDAV, open to whoever shows the token."""

    secret = SECRET

    def __init__(self, folder):
        pytest.importorskip("dvc_webdav", reason="`make test-remotes` installs it")
        wsgi = pytest.importorskip("cheroot.wsgi", reason="`make test-remotes` installs it")
        dav = pytest.importorskip("wsgidav.wsgidav_app", reason="`make test-remotes` installs it")
        self.folder = folder / "store"
        self.folder.mkdir()
        quiet = {"logging": {"enable": False}, "verbose": 0}
        inner = dav.WsgiDAVApp({
            "provider_mapping": {"/": str(self.folder)}, "simple_dc": {"user_mapping": {"*": True}}, **quiet,
        })  # fmt: skip

        def guarded(environ, start_response):
            if environ.get("HTTP_AUTHORIZATION") == f"Bearer {SECRET}":
                return inner(environ, start_response)
            start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Length", "0")])
            return [b""]

        self.server = wsgi.Server(("127.0.0.1", 0), guarded)
        self.server.prepare()
        self.thread = Thread(target=self.server.serve, daemon=True)
        self.thread.start()
        self.environment = {"TEAM_TOKEN": SECRET}
        port = self.server.bind_addr[1]
        self.settings = (
            f"    url = webdav://127.0.0.1:{port}/\n    ssl_verify = false\n"
            "    bearer_token_command = printenv TEAM_TOKEN\n"
        )

    def objects(self):
        return [str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file()]

    def damage(self, name):
        file = self.folder / name
        file.write_bytes(b"?" * file.stat().st_size)

    def close(self):
        self.server.stop()
        self.thread.join(PATIENCE_S)


class Ssh:
    """A folder behind SFTP, open to whoever holds the private key; each kind starts its own server."""

    def __init__(self, folder):
        pytest.importorskip("dvc_ssh", reason="`make test-remotes` installs it")
        self.asyncssh = pytest.importorskip("asyncssh", reason="`make test-remotes` installs it")
        self.folder = folder / "store"
        self.folder.mkdir()
        own, host = (self.asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        keys = folder / "home" / ".ssh"
        keys.mkdir(mode=0o700, parents=True)
        own.write_private_key(keys / "id_ed25519")
        own.write_public_key(keys / "authorized_keys")
        host.write_private_key(folder / "host_key")
        (folder / "host_key").chmod(0o600)
        self.secret = (keys / "id_ed25519").read_text(encoding="utf-8").splitlines()[2]
        port = self.start(folder / "host_key", keys / "authorized_keys")
        self.environment = {"HOME": str(keys.parent)}
        self.settings = f"    url = ssh://127.0.0.1:{port}{self.folder}\n"

    objects, damage = WebDav.objects, WebDav.damage


class OpenSsh(Ssh):
    """OpenSSH's server, in the foreground and with nobody's configuration."""

    def start(self, host_key, authorized):
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("openssh-server is not installed; the server of asyncssh stands for it")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # without it sshd refuses to start as root
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = {
            "ListenAddress": "127.0.0.1", "HostKey": host_key, "AuthorizedKeysFile": authorized, "StrictModes": "no",
            "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no", "UsePAM": "no", "PidFile": "none",
            "Subsystem": "sftp internal-sftp",
        }  # fmt: skip
        command = [program, "-D", "-e", "-f", os.devnull, "-p", str(port)]
        command += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        self.errors = host_key.with_name("sshd.log")
        with self.errors.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert self.process.poll() is None, self.errors.read_text(encoding="utf-8")
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return port

    def close(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)


class AsyncSsh(Ssh):
    """The server of asyncssh, in a thread."""

    def start(self, host_key, authorized):
        self.loop = asyncio.new_event_loop()
        self.thread = Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = self.result_of(self.listen(str(host_key), str(authorized)))
        return self.server.get_port()

    async def listen(self, host_key, authorized):
        options = {"server_host_keys": [host_key], "authorized_client_keys": authorized, "sftp_factory": True}
        return await self.asyncssh.listen("127.0.0.1", 0, **options)

    def result_of(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def close(self):
        self.loop.call_soon_threadsafe(self.server.close)
        self.result_of(self.server.wait_closed())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE_S)


@pytest.fixture(params=[S3, WebDav, OpenSsh, AsyncSsh])
def remote(request, tmp_path):
    server = request.param(tmp_path)
    yield server
    server.close()


def run(folder, command, remote, *, check=True, credentials=True):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "SSH_"))}
    environment |= {"DVC_NO_ANALYTICS": "true", "HOME": str(folder.parent)} | (
        remote.environment if credentials else {}
    )
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    program, *arguments = command.split()
    command = [sys.executable, "-m", "dvc", *arguments] if program == "dvc" else [program, *arguments]
    done = completed(command, cwd=folder, env=environment)
    assert done.returncode == 0 or not check, done.stderr
    return done


@pytest.fixture
def project(tmp_path, remote):
    """A repository whose one stage has run and whose remote is set up as the documentation says."""
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "stage.py").write_text(STAGE, encoding="utf-8")
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (folder / ".gitignore").write_text("/ran.log\n", encoding="utf-8")
    run(folder, "git init -q", remote)
    run(folder, "dvc init -q", remote)
    (folder / ".dvc" / "config").write_text(SETTINGS + remote.settings, encoding="utf-8")
    run(folder, "dvc repro -q", remote)
    for command in ("git add .", "git -c user.name=n -c user.email=n@example.org commit -qm start"):
        run(folder, command, remote)
    return folder


def test_second_clone_pulls_computes_nothing_and_notices_damage(project, remote, tmp_path):
    refused = run(project, "dvc push", remote, check=False, credentials=False)
    assert refused.returncode
    assert remote.objects() == []
    run(project, "dvc push -q --run-cache", remote)

    clone = tmp_path / "second"
    run(tmp_path, f"git clone -q {project} {clone}", remote)
    run(clone, "dvc pull -q", remote)
    assert {file.name: file.read_bytes() for file in (clone / "data" / "work").iterdir()} == {
        file.name: file.read_bytes() for file in (project / "data" / "work").iterdir()
    }
    run(clone, "dvc repro", remote)
    assert not (clone / "ran.log").exists()

    tracked = run(clone, "git ls-files", remote).stdout.split()
    assert not any(remote.secret in (clone / file).read_text(encoding="utf-8") for file in [*tracked, ".dvc/config"])

    damaged = md5((project / "data" / "work" / "second.tar").read_bytes()).hexdigest()
    remote.damage(next(name for name in remote.objects() if name.endswith(f"{damaged[:2]}/{damaged[2:]}")))
    third = tmp_path / "third"
    run(tmp_path, f"git clone -q {project} {third}", remote)
    refused = run(third, "dvc pull", remote, check=False)
    assert refused.returncode
    assert "data/work" in refused.stderr
    assert not (third / "data" / "work" / "second.tar").exists()
    named = run(third, "dvc data status --granular --not-in-remote", remote).stdout + refused.stderr
    assert "second.tar" in named or damaged in named
    assert "first.tar" not in refused.stderr


def test_no_credential_is_tracked():
    settings = configparser.ConfigParser()
    settings.read(ROOT / ".dvc" / "config")
    for section in settings.sections():
        for key in settings[section]:
            assert not any(word in key for word in ("password", "secret", "token", "access_key", "auth_header", "sas"))
    tracked = output(["git", "ls-files", ".dvc"], cwd=ROOT)
    assert not {".dvc/config.local"} & set(tracked.split())
