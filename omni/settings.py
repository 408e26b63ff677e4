"""Django's settings, all of them derived from `omni.kernel.config`.

Owns nothing but the translation. Reads neither the environment nor a file itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import django_stubs_ext

from omni.kernel import config as configuration
from omni.kernel import failpoints, keys
from omni.settings_databases import databases

django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
CONFIG = configuration.load_or_exit()
failpoints.arm(CONFIG.failpoints)

SECRET_KEY = keys.django_key(CONFIG)
OMNI_MASTER_KEYS = keys.master_keys(CONFIG)

DEBUG = False
ALLOWED_HOSTS = ["*"]  # members answer by any of their addresses; nothing is ever built from the Host header
ROOT_URLCONF = "omni.urls"
WSGI_APPLICATION = "omni.wsgi.application"
APPEND_SLASH = False
OMNI_LEAN = "omni.front.lean"  # paths that go past the handler; empty: none do

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",  # the default one puts a site of its own in the place of ours
    "omni.console_admin.ConsoleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "omni",
    "omni.kernel",
    "consensus",
    "accounts",
    "apps",
    "releases",
    "instances",
    "services",
]

MIDDLEWARE = [
    "omni.rest.middleware.RequestContextMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
if (CONFIG.highlight_sql or CONFIG.sql) and CONFIG.role == "web":
    MIDDLEWARE.insert(1, "omni.sql_trace.SqlTraceMiddleware")

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = databases(CONFIG)
DATABASE_ROUTERS = ["omni.telemetry_router.TelemetryRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "accounts.console_login.ConsoleBackend"]
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]  # by user alone anybody could lock the admin out
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
AXES_CLIENT_IP_CALLABLE = "omni.rest.middleware.client_address"
LOGIN_URL = "/admin/login/"
LOGIN_REDIRECT_URL = "/admin/"
LOGOUT_REDIRECT_URL = "/admin/login/"

SESSION_COOKIE_AGE = int(CONFIG.timings.session_s)
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = CONFIG.secure_cookies
CSRF_FAILURE_VIEW = "omni.rest.problem.csrf_failure"
CSRF_TRUSTED_ORIGINS = [CONFIG.web.public_url] if CONFIG.web.public_url else []
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SILENCED_SYSTEM_CHECKS = [
    "axes.W006",  # the lock-out's cool-off is short on purpose
    "models.W027",
]

DATA_UPLOAD_MAX_MEMORY_SIZE = CONFIG.limits.json_body_bytes
FILE_UPLOAD_MAX_MEMORY_SIZE = CONFIG.limits.json_body_bytes

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = "omni.formats"

STATIC_URL = "/static/"
_COLLECTED = BASE_DIR / "staticfiles"
STATIC_ROOT = _COLLECTED if _COLLECTED.is_dir() else None  # only an image collects them
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.RequestActorAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["omni.rest.permissions.ScopePermission"],
    "DEFAULT_RENDERER_CLASSES": ["omni.rest.rendering.OrjsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["omni.rest.rendering.OrjsonParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "omni.rest.rendering.JsonOnly",
    "DEFAULT_METADATA_CLASS": "omni.rest.rendering.NoMetadata",
    "DEFAULT_SCHEMA_CLASS": "omni.api.schema.OmniAutoSchema",
    "EXCEPTION_HANDLER": "omni.rest.problem.handle",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Omni Orchestrator",
    "DESCRIPTION": "The HTTP contract of an application platform whose control plane you can kill. "
    "What each error code means and what helps: [/docs/problems](/docs/problems).",
    "VERSION": "1",
    "OAS_VERSION": "3.0.3",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "PREPROCESSING_HOOKS": ["omni.api.schema.public_routes_only"],
    "POSTPROCESSING_HOOKS": ["omni.api.schema.as_openapi_3_0", "omni.api.schema.add_problems"],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
}

UNFOLD = {
    "SITE_TITLE": "Omni",
    "SITE_HEADER": "Omni Orchestrator",
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
}

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"own": {"()": "observing.journal.formatter", "form": CONFIG.log_format}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "own",
        }
    },
    "root": {"handlers": ["stderr"], "level": CONFIG.log_level},
    "loggers": {
        "django.request": {"level": "ERROR"},
        "axes": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "kombu": {"level": "WARNING"},
    },
}
