"""Makes the operator console the default admin site."""

from django.contrib.admin.apps import AdminConfig


class ConsoleAdminConfig(AdminConfig):
    default_site = "omni.console.ConsoleSite"
