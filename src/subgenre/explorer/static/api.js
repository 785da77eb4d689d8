// The JSON API, one function for each verb. A refusal becomes an Error with the server's message.

async function request(path, options) {
  let response;
  try {
    response = await fetch("/api" + path, options);
  } catch {
    throw new Error("The explorer does not answer. Is the command still running?");
  }
  const revision = response.headers.get("x-revision");
  if (revision) document.dispatchEvent(new CustomEvent("revision", { detail: Number(revision) }));
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => null);
  throw Object.assign(new Error(message(problem, response.status)), { status: response.status });
}

const message = (problem, status) => (problem && problem.detail) || `The server answered with status ${status}.`;

const sender = (method) => (path, body) => request(path, {
  method,
  headers: { "content-type": "application/json", "x-subgenre": "1" },
  body: JSON.stringify(body ?? {}),
});

export const get = (path) => request(path);
export const post = sender("POST");
export const put = sender("PUT");
export const remove = sender("DELETE");

export function upload(path, file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch reports no progress
    request.open("POST", "/api" + path);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.setRequestHeader("x-subgenre", "1");
    request.responseType = "json";
    request.upload.onprogress = (e) => onProgress(e.loaded / e.total);
    request.onerror = () => reject(new Error("The upload was interrupted."));
    request.onload = () => {
      if (request.status === 200) resolve(request.response);
      else reject(new Error(message(request.response, request.status)));
    };
    request.send(file);
  });
}

export const trackPath = (id, rest = "") => `/tracks/${encodeURIComponent(id)}${rest}`;
