from django.urls import path

from tests.example import views

urlpatterns = [
    path("plain", views.plain),
    path("plain-async", views.plain_async),
    path("broken", views.broken),
    path("health", views.plain),
    path("export", views.export),
    path("chats/<str:chat>/send", views.send),
    path("orders", views.Orders.as_view()),
    path("search", views.Search.as_view()),
]
