from django.urls import path

from tests.example import views

urlpatterns = [
    path("plain", views.plain),
    path("plain-async", views.plain_async),
    path("broken", views.broken),
    path("health", views.plain),
    path("export", views.export),
    path("chats/<str:chat>/send", views.send),
    path("rooms/<str:room>", views.Room.as_view()),
    path("orders", views.Orders.as_view()),
    path("search", views.Search.as_view()),
    path("search-stream", views.SearchStream.as_view()),
    path("search-broken", views.SearchBroken.as_view()),
    path("rooms/<str:room>/messages", views.chat),
    path("stream/<str:kind>", views.stream),
    path("decorated-stream", views.decorated_stream),
]
