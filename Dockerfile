# One file for every service: docker build --build-arg SERVICE=ab_router . makes its image, and the command names what
# runs in it: -m services.ab_router web.
FROM python:3.11-slim AS build
WORKDIR /build
COPY requirements.lock ./
# The one lock also pins what tests need: all of it is checked against its hashes here, and the extra picks from that.
RUN pip wheel --no-cache-dir --no-deps --require-hashes --wheel-dir wheels --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY contender contender
COPY stack stack
COPY embedded embedded
COPY services services
COPY shared shared
COPY examples examples
RUN pip wheel --no-cache-dir --no-deps --no-index --find-links wheels --wheel-dir own . ./stack
ARG SERVICE
# pip only warns of an extra that does not exist, so the service is imported before the image is done.
RUN python -m venv --without-pip /venv \
 && pip --python /venv/bin/python install --no-cache-dir --no-index --find-links wheels --find-links own "contender-ml-stack[${SERVICE:?}]" \
 && ln -s /venv/lib/python3.11/site-packages/contender_stack /venv/stack \
 && PYTHONPATH=/venv/stack /venv/bin/python -P -c "import services.${SERVICE}.main"

FROM python:3.11-slim
RUN pip uninstall --yes --root-user-action=ignore setuptools wheel pip \
 && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin contender \
 && install --directory --owner=contender --group=contender /app /data
COPY --from=build /venv /venv
# The services' own folder comes first; the working directory is not on the path.
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/venv/stack \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
# By number, so that an orchestrator can tell that it is not root.
USER 10001:10001
# A module of feature definitions that is mounted here is found by its name, after everything that is installed.
WORKDIR /app
# Python itself is PID 1 and gets the signals.
ENTRYPOINT ["python"]
