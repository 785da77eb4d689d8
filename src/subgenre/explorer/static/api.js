// The JSON API: one function a verb; what is refused becomes an Error with the server's sentence.

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch("/api" + path, options);
  } catch {
    throw new Error("The explorer does not answer. Is the command still running?");
  }
  if (answer.ok) return answer.json();
  const told = await answer.json().catch(() => null);
  throw Object.assign(new Error((told && told.detail) || `Refused (${answer.status})`), { status: answer.status });
}

const sent = (method) => (path, body) => ask(path, {
  method,
  headers: { "content-type": "application/json", "x-subgenre": "1" },
  body: JSON.stringify(body ?? {}),
});

export const get = (path) => ask(path);
export const post = sent("POST");
export const put = sent("PUT");
export const remove = sent("DELETE");

export function upload(path, file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells no progress
    request.open("POST", "/api" + path);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.setRequestHeader("x-subgenre", "1");
    request.responseType = "json";
    request.upload.onprogress = (e) => onProgress(e.loaded / e.total);
    request.onerror = () => reject(new Error("The upload broke off."));
    request.onload = () => {
      if (request.status === 200) resolve(request.response);
      else reject(new Error((request.response && request.response.detail) || `Refused (${request.status})`));
    };
    request.send(file);
  });
}

export const trackPath = (id, rest = "") => `/tracks/${encodeURIComponent(id)}${rest}`;
