"""django-ca as a peer of the issuance benchmark: its manager's ``create_cert``, called in one process as its users may.

Each certificate is a transaction of its own in SQLite, as Django opens it: durable once the call returns. The program
runs in an environment of its own (``.peers``, made by ``make bench``), because django-ca is no dependency of ours.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["find_python", "issue"]

PROGRAM = """
import json, sys, time
from pathlib import Path

from cryptography import x509
from django.conf import settings

folder, files = Path(sys.argv[1]), sys.argv[2:]
static = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
stored = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(folder / "files")}}
no_urls = {"add_crl_url": False, "add_ocsp_url": False, "add_issuer_url": False}
usage = {"key_usage": {"critical": True, "value": ["digital_signature"]}}
settings.configure(
    ROOT_URLCONF="__main__",
    SECRET_KEY="not a secret: nothing is served " * 2,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_ca"],
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "django-ca.db")}},
    STORAGES={"default": stored, "staticfiles": static, "django-ca": stored},
    CA_DEFAULT_HOSTNAME="localhost",
    CA_DEFAULT_PROFILE="benchmark",
    CA_PROFILES={"benchmark": {"subject": False, "extensions": usage, **no_urls}},
    CA_USE_CELERY=False,
)

import django

django.setup()
from django.core.management import call_command
from django.urls import include, path
from django_ca.models import Certificate, CertificateAuthority
from django_ca.profiles import profiles

urlpatterns = [path("django_ca/", include("django_ca.urls"))]
if not (folder / "django-ca.db").exists():
    call_command("migrate", verbosity=0)
    call_command("init_ca", "peer", "CN=Peer CA", "--key-type", "EC", stdout=sys.stderr)
ca = CertificateAuthority.objects.get(name="peer")
options = ca.key_backend.get_use_private_key_options(ca, {})
profile = profiles["benchmark"]
before = time.process_time()
for file in files:
    request = x509.load_pem_x509_csr(Path(file).read_bytes())
    assert request.is_signature_valid
    made = Certificate.objects.create_cert(ca, options, request, profile=profile, subject=request.subject)
    made.pub.loaded.public_bytes
print(json.dumps(time.process_time() - before))
"""


def find_python() -> Path | None:
    """Return the interpreter that can import django-ca, ``None`` where its environment was not made."""
    python = Path(__file__).resolve().parents[1] / ".peers" / "bin" / "python"
    return python if python.exists() else None


def issue(python: Path, folder: Path, files: Sequence[Path]) -> float:
    """Issue for each request and return the CPU seconds of that alone, without what the program takes to start.

    Raises:
        RuntimeError: it did not run to its end.
    """
    folder.mkdir(exist_ok=True)
    run = subprocess.run(
        (python, "-c", PROGRAM, folder, *files), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(f"django-ca failed: {run.stderr[-2000:]}")
    return float(json.loads(run.stdout.splitlines()[-1]))
