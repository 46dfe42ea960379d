"""Jobs, batches, queues, dead letters, workers."""

from django.urls import path

from queues.api import batches, dead_letters, forecast, jobs, queues

urlpatterns = [
    path("jobs", jobs.Jobs.as_view()),
    path("jobs/bulk", jobs.JobsBulk.as_view()),
    path("jobs/<str:uid>", jobs.JobDetail.as_view()),
    path("jobs/<str:uid>/timeline", jobs.JobTimeline.as_view()),
    path("jobs/<str:uid>/explain", jobs.JobExplain.as_view()),
    path("jobs/<str:uid>/cancel", jobs.JobCancel.as_view()),
    path("jobs/<str:uid>/retry", jobs.JobRetry.as_view()),
    path("batches/<str:uid>", batches.BatchDetail.as_view()),
    path("batches/<str:uid>/seal", batches.BatchSeal.as_view()),
    path("queues", queues.Queues.as_view()),
    path("queues/<str:name>", queues.QueueDetail.as_view()),
    path("queues/<str:name>/pause", queues.QueuePause.as_view()),
    path("queues/<str:name>/resume", queues.QueueResume.as_view()),
    path("queues/<str:name>/drain", queues.QueueDrain.as_view()),
    path("queue/status", queues.QueueStatus.as_view()),
    path("queue/stats", queues.QueueStats.as_view()),
    path("queue/requests", queues.QueueRequests.as_view()),
    path("forecast", forecast.ForecastView.as_view()),
    path("workers", queues.Workers.as_view()),
    path("dead-letters", dead_letters.DeadLetters.as_view()),
    path("dead-letters/groups", dead_letters.DeadLetterGroups.as_view()),
    path("dead-letters/replay", dead_letters.DeadLettersReplay.as_view()),
    path("dead-letters/actions/<str:uid>", dead_letters.BulkActionDetail.as_view()),
    path("dead-letters/<str:uid>", dead_letters.DeadLetterDetail.as_view()),
    path("dead-letters/<str:uid>/replay", dead_letters.DeadLetterReplay.as_view()),
    path("dead-letters/<str:uid>/discard", dead_letters.DeadLetterDiscard.as_view()),
]
