"""Django's settings, derived from the typed settings in `control.config.settings`.

Runs once per process at Django's set-up. What an operator may change is in the typed settings
(`settings.COLLECTOR`); what is here follows from them or is fixed.
"""

from __future__ import annotations

from typing import Any

import django_stubs_ext

from collector_site.databases import databases, is_shared
from collector_site.environment import BASE_DIR, installation

# Django's generic classes take type arguments (`QuerySet[Model]`) only once this has run.
django_stubs_ext.monkeypatch()

COLLECTOR = installation()

DEBUG = False
SECRET_KEY = COLLECTOR.server.secret_key
ALLOWED_HOSTS = list(COLLECTOR.server.allowed_hosts)
if COLLECTOR.server.loopback:
    # Local names, and of others only those that were set, so that a web page elsewhere cannot
    # reach this server through a name that it points at 127.0.0.1.
    ALLOWED_HOSTS += ["localhost", "127.0.0.1", "[::1]", COLLECTOR.server.host]
elif not ALLOWED_HOSTS:
    ALLOWED_HOSTS = ["*"]  # see collector.W002

INSTALLED_APPS = [
    "collector_site.apps.SiteConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "django_prometheus",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "control",
    "sinks",
    "ingest",
    "healthmon",
    "jobs",
    # After the apps, so that what they registered is there when it looks for admin modules.
    "control.admin.apps.CollectorAdminConfig",
]

MIDDLEWARE = [
    "control.web.requestid.RequestIdMiddleware",
    "collector_site.middleware.KnownHostMiddleware",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "collector_site.away.AwayMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]
# Sessions, logins and per-view metrics cost more than an ingest view does, and none of them is
# used there: `wsgi.py` sends ingest and the probes through this list.
INGEST_MIDDLEWARE = [
    "control.web.requestid.RequestIdMiddleware",
    "collector_site.middleware.KnownHostMiddleware",
]

ROOT_URLCONF = "collector_site.urls"
WSGI_APPLICATION = "collector_site.wsgi.application"
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
            ],
        },
    }
]

DATABASES = databases(COLLECTOR.databases, COLLECTOR.server.data_dir)
RECORDS_SHARE_DEFAULT = is_shared(DATABASES)
DATABASE_ROUTERS = ["collector_site.routers.CollectorRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False
# Operators compare times across pages and logs: sortable, to the second, UTC.
DATETIME_FORMAT = "Y-m-d H:i:s"
DATE_FORMAT = "Y-m-d"
USE_TZ = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"] if (BASE_DIR / "static").is_dir() else []
WHITENOISE_USE_FINDERS = True  # served from where the packages keep them: nothing to collect
WHITENOISE_AUTOREFRESH = False
WHITENOISE_MAX_AGE = 300

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_NAME = "collector_session"
CSRF_COOKIE_NAME = "collector_csrf"
if COLLECTOR.server.trusted_proxies:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# Request bodies are bounded by ingest, which answers 413; Django's own limit would answer 400.
DATA_UPLOAD_MAX_MEMORY_SIZE = None
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5000

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "control.web.problem.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Collector",
    "DESCRIPTION": "Logs, events, counters and health pings in over HTTP.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "JobStatus": "jobs.states.STATES",
        "JobStepStatus": "jobs.states.STEP_STATES",
    },
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "ApiKeyBearer": {"type": "http", "scheme": "bearer"},
            "ApiKeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    },
}

PROMETHEUS_EXPORT_MIGRATIONS = False

LOGGING_CONFIG = "collector_site.logging.configure"
LOGGING = {
    "format": COLLECTOR.logging.format,
    "level": COLLECTOR.logging.level,
}
