"""The admin as the product's face: the site, base classes for every app's admin, charts, panels.

Apps build their admin on what is exported here:

    from control.admin import ModelAdmin, register

    @register(SinkConfig)
    class SinkConfigAdmin(ModelAdmin): ...

`KeysetModelAdmin` is for tables that grow without bound: it never counts. This package is imported
while the app registry is still filling, so nothing here may import a model at module level; the
registrations for control's own models are imported by `CollectorAdminConfig.ready`.
"""

from __future__ import annotations

from django.contrib.admin import action, display, register, site

from control.admin.keyset import FilterForm, KeysetModelAdmin
from control.admin.options import ModelAdmin, ReadOnlyMixin, ReadOnlyModelAdmin

__all__ = [
    "FilterForm",
    "KeysetModelAdmin",
    "ModelAdmin",
    "ReadOnlyMixin",
    "ReadOnlyModelAdmin",
    "action",
    "display",
    "register",
    "site",
]
