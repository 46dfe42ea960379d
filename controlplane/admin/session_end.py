"""After the session has ended, a request for a fragment sends the whole page to the login form.

htmx follows a redirect by itself and would replace the fragment by the login form.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.urls import reverse


class SessionEndMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if request.headers.get("HX-Request") != "true" or response.status_code != 302:
            return response
        login = reverse("admin:login")
        if urlsplit(response.headers.get("Location", "")).path != login:
            return response
        page = urlsplit(request.headers.get("HX-Current-URL", ""))
        back = page.path + (f"?{page.query}" if page.query else "") or reverse("admin:index")
        return HttpResponse(status=204, headers={"HX-Redirect": redirect_to_login(back, login)["Location"]})
