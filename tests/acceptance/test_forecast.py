"""A forecast of a real instance, and what happens then."""

from __future__ import annotations

from datetime import datetime

from tests.support.instance import wait_until
from tests.support.product import Product, job_of
from tests.support.shapes import Deployment

CONFIGURATION = """
version: 1
projects: [{slug: steady}]
policies: [{name: ten-a-second, scope: project, project: steady, algorithm: token_bucket, limit: 10, window: 1s}]
queues: [{name: steady}]
"""


def test_sixty_jobs_behind_ten_a_second_end_when_the_forecast_says(shared: Deployment, product: Product) -> None:
    shared.apply(CONFIGURATION)
    product.wait(*product.submit_bulk(5, project="steady", queue="steady"))  # how long such jobs run is known then
    jobs = [job_of("t.echo", project="steady", queue="steady")] * 60
    planned = product.post("forecast", {"jobs": jobs, "what_if": {"limits": {"ten-a-second": 20}}})
    batch = product.post("jobs/bulk", {"batch": {"name": "sixty"}, "jobs": jobs}, expected=202)["batch"]["id"]
    forecast = product.get("forecast", batch=batch)
    assert forecast["binding"][0]["kind"] == "policy" and forecast["binding"][0]["name"] == "ten-a-second"
    wait_until(lambda: product.totals(batch)["completed"] == 60, 60)
    whole = product.get(f"batches/{batch}")
    ended, began = datetime.fromisoformat(whole["finished_at"]), datetime.fromisoformat(whole["created_at"])
    length = (ended - began).total_seconds()
    for said in (planned, forecast):
        error = (datetime.fromisoformat(said["done_at"]) - ended).total_seconds()
        assert abs(error) <= 0.2 * length + 2.0, (said, whole)
    assert planned["what_if"][0]["done_at"] < planned["done_at"]
    assert product.get("forecast", batch=batch)["done_at"] == whole["finished_at"]
