"""Settings of the floor that benches compare with: bare Django behind the same front, workers, threads and database.

No middleware, no REST framework, no gate: what any Django project pays before it does anything.
"""

from omni.settings import *  # noqa: F403

INSTALLED_APPS = ["omni", "omni.kernel"]
MIDDLEWARE = []
ROOT_URLCONF = "bench.floor_urls"
OMNI_LEAN = ""
DATABASE_ROUTERS = []
TEMPLATES = []
DATABASES = {
    alias: {**given, "ENGINE": given["ENGINE"].replace("omni.mysql", "django.db.backends.mysql")}
    for alias, given in DATABASES.items()  # noqa: F405
}
