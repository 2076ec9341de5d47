"""The baseline of a submission: a DRF view that inserts one row, on the product's server.

`benchmarks.jobs_bare:application` answers /bare/jobs with a stock `CreateAPIView` and nothing else,
neither middleware nor a look at who sends, and hands every other path to the product.  Only the
benchmark's server is started with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from django.core.handlers.wsgi import WSGIHandler
from django.db import connection, models
from django.urls import path
from rest_framework.generics import CreateAPIView
from rest_framework.parsers import JSONParser
from rest_framework.renderers import JSONRenderer
from rest_framework.serializers import ModelSerializer

from benchmarks.bare import BareHandler
from collector_site.wsgi import application as product

PATH = "/bare/jobs"


class Row(models.Model):
    """What such a row needs at the least: no index but its key's."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    type = models.CharField(max_length=63)
    payload = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager[Row]] = models.Manager()

    class Meta:
        app_label = "benchmarks"
        db_table = "benchmark_row"
        managed = False

    def __str__(self) -> str:
        return str(self.id)


class RowSerializer(ModelSerializer[Row]):
    class Meta:
        model = Row
        fields = ("id", "type", "payload", "created_at")


class BareInsert(CreateAPIView[Row]):
    queryset = Row.objects.all()
    serializer_class = RowSerializer
    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    parser_classes = (JSONParser,)
    renderer_classes = (JSONRenderer,)


urlpatterns = [path(PATH[1:], BareInsert.as_view())]


class InsertHandler(BareHandler):
    def get_response(self, request: Any) -> Any:
        request.urlconf = __name__
        response: Any = WSGIHandler.get_response(self, request)
        # As the usual middleware would: the server sends what has no length in chunks.
        response.headers["Content-Length"] = str(len(response.content))
        return response


_bare = InsertHandler()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ.get("PATH_INFO") == PATH:
        return _bare(environ, start_response)
    return product(environ, start_response)


def make_table() -> None:
    """Not a migration: the product does not have it."""
    with connection.schema_editor() as editor:
        editor.create_model(Row)
