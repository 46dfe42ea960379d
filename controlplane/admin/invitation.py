"""One-time links by which people choose their password and sign in for the first time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.forms import SetPasswordForm
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.contrib.auth.views import PasswordResetConfirmView
from django.http import HttpRequest, HttpResponse
from django.urls import reverse, reverse_lazy
from django.utils.encoding import force_bytes
from django.utils.html import format_html
from django.utils.http import urlsafe_base64_encode
from unfold.widgets import UnfoldAdminPasswordWidget

from quotas.admin.spans import spell_span
from quotas.services.row_facts import record


def link(request: HttpRequest, user: User) -> str:
    """The address at which `user` chooses a password; it works once, and a newer link replaces it."""
    user.set_unusable_password()  # a new random value, so that earlier links end
    user.save(update_fields=["password"])
    token = default_token_generator.make_token(user)
    address = reverse("admin-invitation", args=[urlsafe_base64_encode(force_bytes(user.pk)), token])
    return request.build_absolute_uri(address)


def show(request: HttpRequest, user: User) -> None:
    """Make a link and show it once."""
    life = spell_span(timedelta(seconds=settings.PASSWORD_RESET_TIMEOUT))
    messages.success(
        request,
        format_html(
            "Send {} this link to choose a password. It works once, for {}, and is not shown again:"
            " <code class='sl-secret' id='invitation'>{}</code>",
            user, life, link(request, user),
        ),
    )  # fmt: skip


class PasswordForm(SetPasswordForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.widget = UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"})


class InvitationView(PasswordResetConfirmView):
    """The page behind the link: two fields for a password, and then the dashboard."""

    template_name = "admin/sluice/invitation.html"
    form_class = PasswordForm
    post_reset_login = True
    post_reset_login_backend = "django.contrib.auth.backends.ModelBackend"
    success_url = reverse_lazy("admin:index")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """With the admin's own context, which has the theme's colours: without them the button can't be seen."""
        return {**admin.site.each_context(self.request), **super().get_context_data(**kwargs)}

    def get_user(self, uidb64: str) -> Any:
        """No user who was deactivated meanwhile."""
        user = super().get_user(uidb64)
        return user if user is not None and user.is_active and user.is_staff else None

    def form_valid(self, form: Any) -> HttpResponse:
        answer: HttpResponse = super().form_valid(form)
        user: Any = self.user
        record(f"user:{user}", "accept_invitation", user, None, {"password": "set"}, "")
        return answer
