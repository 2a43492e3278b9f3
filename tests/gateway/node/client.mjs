// OpenAI's own client for Node, driven line by line: a JSON request on stdin, its outcome as JSON on stdout.
//
// {"id": 1, "base_url": "…", "call": "chat.completions.create", "params": {…}, "options": {…}}
//   call: the SDK's method, called with params; a stream is read to its end. "chat.completions.stream" and
//         "responses.stream" are the SDK's helpers, "chat.completions.runTools" calls multiply() where it is asked to.
//   leave_after: with a stream, break off after so many chunks.
// {"abort": 1} aborts that request by its AbortController.

import readline from "node:readline";
import OpenAI from "openai";

const controllers = new Map();

for await (const line of readline.createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  if (asked.abort !== undefined) {
    controllers.get(asked.abort)?.abort();
    continue;
  }
  controllers.set(asked.id, new AbortController());
  outcome(asked, controllers.get(asked.id).signal)
    .catch((error) => ({ error: told(error) }))
    .then((result) => process.stdout.write(JSON.stringify({ id: asked.id, ...result }) + "\n"));
}

async function outcome({ base_url, call, params, options = {}, leave_after }, signal) {
  const client = new OpenAI({ baseURL: base_url, apiKey: "unused", maxRetries: 0, ...options });
  const names = call.split(".");
  const resource = names.slice(0, -1).reduce((place, name) => place[name], client);
  const method = names.at(-1);
  if (method === "runTools") return tools(resource, params, signal);
  const begun = resource[method](params, { signal });
  if (method === "stream") {
    const pieces = [];
    for await (const piece of begun) pieces.push(piece);
    return { pieces, final: await (begun.finalChatCompletion ?? begun.finalResponse).call(begun) };
  }
  const { data, response } = await begun.withResponse();
  const headers = Object.fromEntries(response.headers);
  if (!params?.stream) return { data: data.data && call.endsWith("list") ? data.data : data, headers };
  const pieces = [];
  for await (const piece of data) {
    pieces.push(piece);
    if (pieces.length === leave_after) break;
  }
  return { pieces, headers };
}

async function tools(resource, params, signal) {
  const multiply = ({ a, b }) => String(a * b);
  const described = params.tools.map((tool) => ({
    ...tool,
    function: { ...tool.function, function: multiply, parse: JSON.parse },
  }));
  const runner = resource.runTools({ ...params, tools: described }, { signal });
  return { final: await runner.finalContent(), messages: runner.messages };
}

function told(error) {
  return {
    kind: error.constructor.name,
    message: error.message,
    status: error.status ?? null,
    code: error.code ?? null,
    param: error.param ?? null,
    type: error.type ?? null,
    request_id: error.requestID ?? null,
  };
}
