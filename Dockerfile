# The operator's image: the base's Python, one virtual environment in /opt/longtail, and nothing to install with.
# docs/install.md says how to build it.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG UV_VERSION=0.13.9
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 UV_NO_CACHE=1 UV_OFFLINE=1 UV_PYTHON_DOWNLOADS=never
# Plain Debian has Python without pip.
RUN python3 -m pip --version || { apt-get update && apt-get install --yes --no-install-recommends python3-pip; }
RUN python3 -m venv --without-pip /tools && python3 -m venv --without-pip /opt/longtail
WORKDIR /src
COPY pyproject.toml uv.lock ./
# Where packages come from is nobody's business but the builder's: two files, mounted for these steps only.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca-certificates.crt \
    python3 -m pip --python /tools/bin/python install --only-binary=:all: "uv==${UV_VERSION}" \
    && /tools/bin/uv export --quiet --frozen --only-group image --output-file /tools/requirements.txt \
    && python3 -m pip --python /tools/bin/python install --require-hashes --no-deps --only-binary=:all: \
        --requirement /tools/requirements.txt
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca-certificates.crt \
    /tools/bin/uv export --quiet --frozen --no-dev --no-emit-project --output-file /tools/runtime.txt \
    && python3 -m pip --python /opt/longtail/bin/python install --require-hashes --no-deps --only-binary=:all: \
        --no-compile --requirement /tools/runtime.txt
COPY README.md LICENSE ./
COPY operator operator
RUN /tools/bin/python -m hatchling build --target wheel --directory /tools/dist \
    && python3 -m pip --python /opt/longtail/bin/python install --no-index --no-deps --no-compile /tools/dist/*.whl
RUN /tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
        --spec-version 1.6 --output-format JSON --output-file /opt/longtail/sbom.cdx.json /opt/longtail/bin/python
# What nothing imports: tests, and the models and calls that were generated for the synchronous client of Kubernetes
# (33 MB; this operator speaks the other half's aio). The rest is compiled here, as it cannot be where the root is
# read-only, but for the aio half's: 900 modules that are loaded one by one when somebody names them.
RUN cd /opt/longtail/lib/python3*/site-packages \
    && find kubernetes/client/models kubernetes/client/api -name '*.py' ! -name __init__.py -delete \
    && find . -depth -type d \( -name tests -o -name e2e_test \) -exec rm -r {} + \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -x 'kubernetes/aio/client/(models|api)/[a-z]' .

FROM ${BASE}
# The base's own pip and setuptools are seen by nobody in /opt/longtail, and are one thing less to patch.
RUN rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* \
        /usr/local/bin/wheel \
    && if python3 -m pip --version; then echo 'the base has a pip that this file does not know to remove' >&2; exit 1; fi \
    && echo 'longtail:x:65532:' >> /etc/group \
    && echo 'longtail:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd
COPY --from=build /opt/longtail /opt/longtail
ENV PATH=/opt/longtail/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["longtail"]
CMD ["run"]
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="longtail" \
      org.opencontainers.image.description="Kubernetes autoscaler for pools of reasoning models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
