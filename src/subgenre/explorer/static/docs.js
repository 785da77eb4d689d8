// The API's description as a plain page.

import { byId, make } from "./dom.js";

const nameOf = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(nameOf).join(" or ");
  if (schema.items) return `list of ${nameOf(schema.items)}`;
  return schema.enum ? schema.enum.join(" | ") : schema.type || "";
};

function fields(rows) {
  return make("table", {}, ...rows.map(([name, type, description, required]) => make("tr", {},
    make("th", { scope: "row" }, name, required ? " *" : ""), make("td", {}, type), make("td", {}, description || ""))));
}

function call(path, method, operation, schemas) {
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  const rows = (operation.parameters || []).map((p) => [p.name, nameOf(p.schema), p.description, p.required]);
  if (body) {
    const schema = schemas[nameOf(body)];
    for (const [name, field] of Object.entries(schema.properties || {})) rows.push([name, nameOf(field), field.description, (schema.required || []).includes(name)]);
  }
  const returns = nameOf(operation.responses?.["200"]?.content?.["application/json"]?.schema);
  return make("section", { class: "call" }, make("h2", {}, make("code", {}, `${method.toUpperCase()} ${path}`)), make("p", {}, operation.description || operation.summary || ""),
    rows.length ? fields(rows) : "", returns ? make("p", { class: "soft" }, `Returns ${returns}.`) : "");
}

try {
  const api = await (await fetch("/api/openapi.json")).json();
  const schemas = api.components.schemas;
  const calls = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => call(path, method, operation, schemas)));
  byId("calls").replaceChildren(...calls);
} catch {
  byId("calls").replaceChildren(make("p", { class: "empty bad" }, "The description could not be loaded."));
}
