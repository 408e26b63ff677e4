"""Django's request handler; `omni.front` runs it on threads of its own."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
application = get_wsgi_application()
