"""What `helm test` runs in the operator's image: is it ready, may it do its work, does it read metrics, does it answer?

Only the metric sources need the product; the rest is the standard library, so that a broken product cannot hide.
"""

import asyncio
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
API = os.environ.get("API_URL", "https://kubernetes.default.svc")
TOKEN = Path(os.environ.get("API_TOKEN_FILE", f"{_MOUNT}/token"))
AUTHORITY = os.environ.get("API_CA_FILE", f"{_MOUNT}/ca.crt")
NAMESPACE = os.environ["TEST_NAMESPACE"]
SERVINGS = f"/apis/longtail.dev/v1alpha1/namespaces/{NAMESPACE}/reasoningservings"
ANSWER_SECONDS = float(os.environ.get("ANSWER_SECONDS", "120"))


def ask(method, path, body=None):
    """Send one request to the API server and return what it answers."""
    request = urllib.request.Request(
        API + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN.read_text().strip()}", "Content-Type": "application/json"},
    )
    trusted = ssl.create_default_context(cafile=AUTHORITY)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)


def is_ready():
    """An operator answers behind the Service and has listed the cluster."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(os.environ["READY_URL"], timeout=10) as answer:
        return answer.read().decode().strip()


def has_rights():
    """The API server would let the operator do all that the chart's rules say."""
    refused = []
    reviews = 0
    for rule in json.loads(os.environ["RULES"]):
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                kind, _, subresource = resource.partition("/")
                for verb in rule["verbs"]:
                    attributes = {"namespace": NAMESPACE, "group": group, "resource": kind, "verb": verb}
                    spec = {"user": os.environ["OPERATOR"], "resourceAttributes": attributes}
                    attributes |= {"subresource": subresource} if subresource else {}
                    review = {
                        "apiVersion": "authorization.k8s.io/v1",
                        "kind": "LocalSubjectAccessReview",
                        "metadata": {"namespace": NAMESPACE},
                        "spec": spec,
                    }
                    path = f"/apis/authorization.k8s.io/v1/namespaces/{NAMESPACE}/localsubjectaccessreviews"
                    reviews += 1
                    if not ask("POST", path, review)["status"].get("allowed"):
                        refused.append(f"{verb} {resource}")
    if refused:
        raise AssertionError(f"{os.environ['OPERATOR']} may not: {', '.join(refused)}")
    return f"{reviews} of {reviews}"


def reads_metrics():
    """Every metric source answers a query, with its own credentials."""
    from longtail.control.sources import read_sources
    from longtail.signals.client import PrometheusClient

    sources = read_sources(Path(os.environ["SOURCES_FILE"]))
    for source in sources:
        client = PrometheusClient(source)
        try:
            asyncio.run(client.query("vector(1)", time.time()))
        finally:
            client.close()
    return ", ".join(source.name for source in sources) or "none is configured"


def answers():
    """A resource in mode Advise whose target does not exist gets a status that says so."""
    name = f"helm-test-{int(time.time())}"
    resource = {
        "apiVersion": "longtail.dev/v1alpha1",
        "kind": "ReasoningServing",
        "metadata": {"name": name},
        "spec": {"mode": "Advise", "scaleTargetRef": {"name": name}, "maxReplicas": 1},
    }
    ask("POST", SERVINGS, resource)
    try:
        until = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < until:
            status = ask("GET", f"{SERVINGS}/{name}").get("status", {})
            for condition in status.get("conditions", ()):
                if condition["type"] == "Ready":
                    if condition["reason"] != "TargetNotFound":
                        raise AssertionError(f"Ready says {condition['reason']}, TargetNotFound was expected")
                    return condition["message"]
            time.sleep(1)
        raise AssertionError(f"no status within {ANSWER_SECONDS:.0f} s")
    finally:
        ask("DELETE", f"{SERVINGS}/{name}")


def main():
    """Run all checks, whatever becomes of each; return the exit code."""
    failed = 0
    for check in (is_ready, has_rights, reads_metrics, answers):
        try:
            print(f"ok    {check.__doc__} ({check()})", flush=True)
        except Exception as error:  # whatever it is, the others still tell something
            failed += 1
            detail = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
            print(f"FAIL  {check.__doc__} {error} {detail}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
