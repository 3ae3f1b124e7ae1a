// Draws openapi.json: of each request its parameters, its body, and what it answers.

/** An element with attributes and children; strings become text, never HTML. */
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The schema that a $ref stands for. */
function resolved(schema, api) {
  if (!schema.$ref) return schema;
  return schema.$ref.split("/").slice(1).reduce((at, step) => at[step], api);
}

/** What a value looks like, as an indented sketch in the manner of JSON. */
function sketch(given, api, indent = "") {
  const schema = resolved(given, api);
  const inner = `${indent}  `;
  if (schema.anyOf) return schema.anyOf.map((one) => sketch(one, api, indent)).join(" | ");
  if (schema.type === "array") return `[${sketch(schema.items ?? {}, api, indent)}, …]`;
  if (schema.properties) {
    const required = schema.required ?? [];
    const lines = Object.entries(schema.properties).map(([name, value]) => {
      const left = required.includes(name) ? "" : "?";
      const usual = value.default === undefined ? "" : ` = ${JSON.stringify(value.default)}`;
      return `${inner}"${name}"${left}: ${sketch(value, api, inner)}${usual}`;
    });
    return `{\n${lines.join("\n")}\n${indent}}`;
  }
  if (schema.type === "object") {
    return `{name: ${sketch(schema.additionalProperties ?? {}, api, indent)}, …}`;
  }
  if (schema.contentEncoding) return schema.contentEncoding;
  if (schema.format === "binary") return "file";
  return `${schema.type ?? "anything"}${bounds(schema)}`;
}

function bounds({ minimum, maximum, maxLength }) {
  if (maximum !== undefined) return ` ${minimum ?? ""}…${maximum}`;
  if (maxLength !== undefined) return ` of ${maxLength} characters at most`;
  return minimum === undefined ? "" : ` from ${minimum}`;
}

function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((one) => element("th", { scope: "col" }, one)));
  const body = rows.map((row) => element("tr", {}, ...row.map((one) => element("td", {}, one))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

function contents(content, api) {
  return Object.entries(content ?? {}).flatMap(([kind, { schema }]) => [
    element("p", {}, element("code", {}, kind)),
    ...(schema ? [element("pre", {}, sketch(schema, api))] : []),
  ]);
}

function operation(id, title, told, api) {
  const made = element("section", { id }, element("h2", {}, title));
  made.append(element("p", {}, told.description ?? told.summary ?? ""));
  if (told.security) made.append(element("p", {}, "Needs the header Authorization: Bearer TOKEN."));
  if (told.parameters?.length) {
    const rows = told.parameters.map((one) => [
      element("code", {}, one.name),
      one.in,
      one.required ? "required" : `default ${JSON.stringify(one.schema.default)}`,
      sketch(one.schema, api),
    ]);
    made.append(table(["parameter", "in", "", "value"], rows));
  }
  if (told.requestBody) {
    made.append(element("h3", {}, "Body"), ...contents(told.requestBody.content, api));
  }
  const answers = Object.entries(told.responses);
  for (const [status, answer] of answers.filter(([status]) => status < 300)) {
    made.append(element("h3", {}, `Answer ${status}`), ...contents(answer.content, api));
  }
  const errors = answers.filter(([status]) => status >= 300);
  if (errors.length) {
    const rows = errors.map(([status, answer]) => [status, answer.description]);
    made.append(element("h3", {}, 'Errors: {"error": "one line"}'), table(["status", ""], rows));
  }
  return made;
}

async function draw() {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  const api = await answer.json();
  document.getElementById("about").textContent = `${api.info.title} ${api.info.version}: ${api.info.description}`;
  const sections = [];
  const links = [];
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, told] of Object.entries(methods)) {
      const title = `${method.toUpperCase()} ${path}`;
      const id = told.operationId;
      links.push(element("a", { href: `#${id}` }, title));
      sections.push(operation(id, title, told, api));
    }
  }
  document.getElementById("contents").replaceChildren(...links);
  document.getElementById("operations").replaceChildren(...sections);
}

draw().catch((error) => {
  document.getElementById("operations").textContent = `This page cannot be drawn: ${error.message}`;
});
