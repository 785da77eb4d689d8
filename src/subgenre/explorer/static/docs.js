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
  return make("table", {}, ...rows.map(([name, kind, words, needed]) => make("tr", {},
    make("th", { scope: "row" }, name, needed ? " *" : ""), make("td", {}, kind), make("td", {}, words || ""))));
}

function call(path, method, told, schemas) {
  const body = told.requestBody?.content?.["application/json"]?.schema;
  const rows = (told.parameters || []).map((p) => [p.name, nameOf(p.schema), p.description, p.required]);
  if (body) {
    const schema = schemas[nameOf(body)];
    for (const [name, one] of Object.entries(schema.properties || {})) rows.push([name, nameOf(one), one.description, (schema.required || []).includes(name)]);
  }
  const gives = nameOf(told.responses?.["200"]?.content?.["application/json"]?.schema);
  return make("section", { class: "call" }, make("h2", {}, make("code", {}, `${method.toUpperCase()} ${path}`)), make("p", {}, told.description || told.summary || ""),
    rows.length ? fields(rows) : "", gives ? make("p", { class: "soft" }, `Gives ${gives}.`) : "");
}

try {
  const api = await (await fetch("/api/openapi.json")).json();
  const schemas = api.components.schemas;
  const calls = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, told]) => call(path, method, told, schemas)));
  byId("calls").replaceChildren(...calls);
} catch {
  byId("calls").replaceChildren(make("p", { class: "empty bad" }, "The description can't be read."));
}
