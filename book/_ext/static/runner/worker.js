/* Python beside the page: it may run for ever or fill its memory, and the page ends it.
   In: {do: "start", version, python, compiled}, {do: "run", text}, {do: "check", text, exercise, parts}. Out: {say: ..., ...}. */
"use strict";

/* Memory that has grown does not shrink, and a phone has little: past this, allocating fails as Python knows it. */
const MOST_BYTES = 1 << 30;
const grow = WebAssembly.Memory.prototype.grow;
WebAssembly.Memory.prototype.grow = function (pages) {
  if (this.buffer.byteLength + pages * 65536 > MOST_BYTES) throw new RangeError("more than this page allows");
  return grow.call(this, pages);
};

const home = new URL(".", self.location.href);
let version, python, session;
const known = new Set();

function say(what, more) {
  self.postMessage({ say: what, ...more });
}

/* What an earlier worker of the page compiled is used again; the first sends it to the page. Compiled from its bytes: a
   stream would have to come with the right type, which not every server knows. */
let compiled;
WebAssembly.instantiateStreaming = async (coming, imports) => {
  const answer = await coming;
  if (!compiled) {
    compiled = await WebAssembly.compile(await answer.arrayBuffer());
    say("compiled", { module: compiled });
  }
  return { module: compiled, instance: await WebAssembly.instantiate(compiled, imports) };
};

/* fetch, with the bytes counted as they come. The page's own version stands in each address, so that after a new build
   nothing of the old one is taken from a cache. */
const plainFetch = self.fetch.bind(self);
let loaded = 0;
self.fetch = async (address, options) => {
  const url = new URL(address, home);
  if (compiled && url.pathname.endsWith(".wasm")) return new Response();
  url.searchParams.set("v", version);
  try {
    const answer = await plainFetch(url, options);
    if (!answer.ok) throw new Error(String(answer.status));
    const counted = new TransformStream({
      transform(chunk, controller) {
        loaded += chunk.byteLength;
        say("bytes", { loaded });
        controller.enqueue(chunk);
      },
    });
    return new Response(answer.body.pipeThrough(counted), { status: answer.status, headers: answer.headers });
  } catch (error) {
    // Said here, because Pyodide goes on waiting for a file that it did not get.
    say("failed", { during: "start", why: `${url.pathname.split("/").at(-1)}: ${error.message}` });
    throw error;
  }
};

async function start(folder) {
  self.importScripts(new URL(`${folder}/pyodide.js`, home).href);
  const archive = self.fetch("course/normlab.zip").then((answer) => answer.arrayBuffer());
  python = await self.loadPyodide({ indexURL: new URL(`${folder}/`, home).href, stdout: () => {}, stderr: () => {} });
  await python.loadPackage("numpy", { messageCallback: () => {} });
  say("starting");
  python.unpackArchive(await archive, "zip", { extractDir: "/course" });
  python.runPython("import sys; sys.path.insert(0, '/course')");
  session = python.pyimport("session");
  session.start();
  say("ready");
}

/* PyTorch's answers, fetched when an exercise is first checked. */
async function know(exercise) {
  if (known.has(exercise)) return;
  const answer = await self.fetch(`golden/${exercise}.npz`);
  python.FS.writeFile(`/${exercise}.npz`, new Uint8Array(await answer.arrayBuffer()));
  session.know(exercise, `/${exercise}.npz`);
  known.add(exercise);
}

function tell(message) {
  say("told", message.toJs({ dict_converter: Object.fromEntries }));
}

function answer(result) {
  const found = result.toJs({ dict_converter: Object.fromEntries });
  result.destroy();
  say("done", { result: found, bytes: python._module.HEAP8.length });
}

const tasks = {
  async start(message) {
    ({ version, compiled } = message);
    await start(message.python);
  },
  run(message) {
    answer(session.run(message.text, tell));
  },
  async check(message) {
    try {
      await know(message.exercise);
    } catch (error) {
      say("failed", { during: "start", why: error.message });
      return;
    }
    say("checking");
    answer(session.check(message.text, message.exercise, python.toPy(message.parts), tell));
  },
};

self.onmessage = async ({ data }) => {
  try {
    await tasks[data.do](data);
  } catch (error) {
    say("failed", { during: data.do, why: String(error.message ?? error).trim().split("\n").at(-1) });
  }
};
