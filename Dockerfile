# docker build -t omni-orchestrator . && docker run -p 3000:3000 omni-orchestrator
# The whole platform in one container: one node on port 3000, its broker, build worker and ingress (port 8080).
FROM python:3.11-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev pkg-config libmariadb-dev \
 && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /tmp/
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir -r /tmp/requirements.txt

FROM python:3.11-slim
# libmariadb3 for mysqlclient, Node for apps that need it; builds of the users' apps run in here.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libmariadb3 nodejs npm curl \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 omni \
 && install -d -o omni -g omni /data
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /omni
COPY . .
# Static files are collected only where the folder for them is there already (omni.settings).
RUN python -m compileall -q . \
 && mkdir staticfiles \
 && OMNI_STATE=/tmp/collect python manage.py collectstatic --no-input >/dev/null \
 && rm -rf /tmp/collect \
 && chmod -R a+rX .
# A node alone: no peers, listening on every address of the container, known to itself as 127.0.0.1-3000.
ENV OMNI_PORT=3000 OMNI_ADDRESS=0.0.0.0 OMNI_INSTANCES=[] OMNI_INGRESS_ADDRESS=0.0.0.0 OMNI_STATE=/data
USER omni
VOLUME /data
EXPOSE 3000 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD curl -fsS "http://127.0.0.1:${OMNI_PORT}/health/ready" >/dev/null || exit 1
CMD ["python", "-m", "omni.launch"]
