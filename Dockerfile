# The command line and the explorer, on a CPU. docs/install.md shows how to use it.
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
COPY constraints.txt /opt/
COPY --from=build /wheels /opt/wheels
RUN python -m venv /opt/subgenre \
    && /opt/subgenre/bin/pip install --no-cache-dir --no-deps \
        --index-url https://download.pytorch.org/whl/cpu -c /opt/constraints.txt torch \
    && /opt/subgenre/bin/pip install --no-cache-dir -c /opt/constraints.txt \
        "subgenre[web] @ file://$(echo /opt/wheels/subgenre-*.whl)" \
    && useradd --create-home --uid 1000 subgenre \
    && install --directory --owner subgenre --group subgenre /music /models
# downloaded backbones stay with the models; the log shows the page's address at once
ENV PATH=/opt/subgenre/bin:$PATH HF_HOME=/models/.huggingface PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /models
VOLUME ["/music", "/models"]
EXPOSE 8765
# without SUBGENRE_TOKEN the explorer answers 401, which shows that it serves
HEALTHCHECK --start-period=2m CMD ["python", "-c", "\
import os; from http.client import HTTPConnection; \
page = HTTPConnection('127.0.0.1', 8765, timeout=5); \
page.request('GET', '/api/refit', headers={'Authorization': 'Bearer ' + os.environ.get('SUBGENRE_TOKEN', '')}); \
raise SystemExit(page.getresponse().status not in (200, 401))"]
ENTRYPOINT ["subgenre"]
CMD ["explore", "--host", "0.0.0.0"]
