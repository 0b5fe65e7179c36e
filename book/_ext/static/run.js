/* Makes an editor of each exercise that NumPy can do: run it, check it with normlab.check, keep it.
   Python is fetched at the first click on Run or Check, and lives in a worker, which can be ended. */
"use strict";

(function () {
  const blocks = [...document.querySelectorAll(".exercise[data-exercise]")];
  if (!blocks.length) return;

  const course = window.normlabCourse ?? { chapters: {}, runner: null };
  const work = window.normlabWork;
  const home = new URL("runner/", document.querySelector("script[src*='run.js']").src.replace(/run\.js.*$/, ""));
  const GRACE = 3; // seconds that Python has to stop by itself, before its worker is ended
  const LARGE = 512 << 20; // a worker that has grown to this is replaced: memory does not shrink

  const { make, button, status } = window.normlabDom;

  /* A button that asks once more where `asks()` says what would be lost. */
  function careful(words, className, asks, action) {
    const made = button(words, className, () => {
      const question = asks();
      if (question && made.textContent === words) {
        made.textContent = question;
        return;
      }
      made.textContent = words;
      action();
    });
    made.addEventListener("blur", () => { made.textContent = words; });
    return made;
  }

  /* ---- Python, one for the page ---- */

  const python = {
    worker: null,
    ready: false,
    compiled: undefined, // Python's WebAssembly.Module, once a worker has it
    job: null, // {task, handlers}
    late: null,
    sentence: null,
    listeners: new Set(),

    start() {
      const worker = new Worker(new URL(`worker.js?v=${course.runner.version}`, home));
      this.worker = worker;
      this.ready = false;
      // The last words of one that was ended may still come.
      const hear = (data) => { if (worker === this.worker) this.hear(data); };
      worker.addEventListener("message", ({ data }) => hear(data));
      worker.addEventListener("error", (event) => {
        event.preventDefault();
        hear({ say: "failed", during: "start", why: event.message || "the worker could not be started" });
      });
      const { version, python } = course.runner;
      this.worker.postMessage({ do: "start", version, python, compiled: this.compiled });
    },

    /* Ends the worker. The next one starts at once, with what is compiled; the other files are in the browser's cache. */
    end(again = true) {
      window.clearTimeout(this.late);
      this.worker?.terminate();
      this.worker = null;
      if (again) this.start();
    },

    ask(task, handlers) {
      this.job = { task, handlers, sent: false };
      if (!this.worker) this.start();
      if (this.ready) this.send();
      this.changed();
    },

    send() {
      if (!this.job || this.job.sent) return;
      this.job.sent = true;
      this.job.handlers.started?.();
      this.worker.postMessage(this.job.task);
      this.limit(null, 30);
    },

    /* After so many seconds without a word from the worker it is ended, and `sentence` is the answer. */
    limit(sentence, seconds) {
      window.clearTimeout(this.late);
      this.late = window.setTimeout(() => {
        const { handlers } = this.finish();
        this.end();
        handlers.late(sentence);
      }, 1000 * (seconds + GRACE));
    },

    finish() {
      window.clearTimeout(this.late);
      const { job } = this;
      this.job = null;
      this.changed();
      return job;
    },

    changed() {
      this.listeners.forEach((listener) => listener(this.job));
    },

    hear(data) {
      const handlers = this.job?.handlers;
      if (data.say === "bytes") handlers?.loading?.(data.loaded);
      if (data.say === "compiled") this.compiled = data.module;
      if (data.say === "starting") handlers?.loading?.(null);
      if (data.say === "ready") {
        this.ready = true;
        this.send();
      }
      if (data.say === "checking") handlers?.checking?.();
      if (data.say === "told" && this.job) {
        if (data.print !== undefined) handlers.printed?.(data.print);
        if (data.part) handlers.checking?.(data.part);
        if (data.verdict) handlers.verdict?.(data.verdict);
        if (data.seconds) this.limit(data.case, data.seconds);
      }
      if (data.say === "done" && this.job) {
        this.finish();
        handlers.done(data.result);
        if (data.bytes > LARGE) this.end();
      }
      if (data.say === "failed") {
        const job = this.job && this.finish();
        // What cannot be started now may be had later, at the next click.
        this.end(false);
        job?.handlers.failed(data.why, data.during !== "start");
      }
    },
  };

  /* ---- One exercise ---- */

  const mega = (bytes) => (bytes / 1e6).toFixed(1);
  const exercises = [];

  function enhance(block) {
    const name = block.dataset.exercise;
    const stub = block.querySelector(":scope > .highlight-python");
    const stubText = stub.querySelector("pre").textContent.replace(/\n+$/, "");
    const parts = block.dataset.parts.split(" ").map((part) => part.split(":")).map(([part, points]) => ({ part, points: Number(points) }));
    const worth = Object.fromEntries(parts.map(({ part, points }) => [part, points]));
    const hints = [...block.querySelectorAll("details:not(.exercise-after)")].filter((fold) => !fold.closest(".exercise-after"));
    const state = () => work.get(name);

    const editor = window.normlabEditor(`Your code for ${name}`, state().text ?? stubText, () => {
      const text = editor.text();
      work.set(name, { text: text === stubText ? null : text });
      verdict.classList.toggle("run-stale", Boolean(state().verdict) && state().verdict.text !== text);
    });
    editor.field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.shiftKey || event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      if (event.shiftKey) run.click();
      else check.click();
    });
    const keys = make("p", { className: "run-keys", id: `run-keys-${name}` }, "NumPy is there as np. ",
      make("span", { className: "run-shortcuts",
        textContent: "Shift+Enter runs, Ctrl+Enter checks. Tab indents; Escape, then Tab, leaves the editor." }));
    editor.field.setAttribute("aria-describedby", keys.id);

    const progress = status("div", "run-progress");
    const verdict = status("div", "run-verdict");
    const output = make("pre", { className: "run-output", tabIndex: 0, hidden: true });
    output.setAttribute("aria-label", "Output");
    output.setAttribute("role", "region");
    const note = status("div", "run-note");
    const solution = make("div", { className: "run-solution", hidden: true, tabIndex: -1 });
    const badge = make("span", { className: "run-badge", hidden: true, textContent: "Solved" });
    block.querySelector(".exercise-head").append(badge);

    const begin = () => {
      output.hidden = true;
      output.textContent = "";
      note.textContent = "";
      progress.textContent = "Starting Python …";
    };

    const handlers = {
      // Said once to who listens; the numbers change for the eye alone.
      loading(bytes) {
        if (bytes === null) progress.textContent = "Starting Python …";
        else {
          let counter = progress.querySelector(".run-bytes");
          if (!counter) {
            counter = make("span", { className: "run-bytes" });
            counter.setAttribute("aria-hidden", "true");
            progress.replaceChildren("Loading Python, once: ", counter);
          }
          counter.textContent = `${mega(bytes)} of ${mega(course.runner.bytes)} MB`;
        }
      },
      failed(why, running) {
        progress.textContent = "";
        if (running) refuse("Python gave up: the memory of this page, 1 GB, is used up, or something else broke. It starts anew at the next click.");
        else note.textContent = `Python could not be loaded (${why}). Try again, or use the notebook below.`;
      },
    };

    const run = button("Run", "run-run", () => {
      begin();
      python.ask({ do: "run", owner: name, text: editor.text() }, {
        ...handlers,
        started() { progress.textContent = "Running …"; },
        printed(text) {
          output.hidden = false;
          output.append(text);
        },
        done(result) {
          progress.textContent = "";
          if (result.error) {
            output.hidden = false;
            output.append(make("span", { className: "run-error", textContent: `${output.textContent ? "\n" : ""}${result.error}` }));
          }
          note.textContent = output.textContent ? (result.error ? "It stopped with an error: see below." : "It ran: its output is below.")
            : "It ran, and printed nothing. To see a value, write it on the last line.";
        },
        late() { refuse("It did not end and was stopped: look for a loop that never ends."); },
      });
    });

    /* One sentence in place of a verdict. */
    function refuse(sentence) {
      progress.textContent = "";
      verdict.className = "run-verdict run-refused";
      verdict.replaceChildren(make("p", { textContent: sentence }));
    }

    const check = button("Check", "run-check", () => {
      begin();
      verdict.replaceChildren();
      verdict.className = "run-verdict";
      const text = editor.text();
      const heard = [];
      let current = null;
      if (text !== stubText) work.set(name, { tried: true });
      showTried();
      const finish = (rest) => {
        progress.textContent = "";
        // Each part that was not reached counts as not right.
        parts.slice(heard.length).forEach(({ part }, index) => {
          heard.push({ part, accepted: false, sentence: index ? "not checked: the part before did not end." : rest });
        });
        const all = heard.every(({ accepted }) => accepted);
        const change = { verdict: { text, parts: heard } };
        work.set(name, all ? { ...change, solved: true } : change);
        showVerdict();
      };
      python.ask({ do: "check", owner: name, exercise: name, text, parts: parts.map(({ part }) => part) }, {
        ...handlers,
        started() { progress.textContent = "Checking …"; },
        checking(part) { progress.textContent = part ? `Checking ${part} …` : "Checking …"; current = part; },
        verdict(one) { heard.push({ part: one.part, accepted: one.accepted, sentence: one.sentence }); },
        done(result) {
          if (result.error) {
            refuse("The code does not run, so there is nothing to check yet:");
            verdict.append(make("pre", { textContent: result.error }));
          } else finish();
        },
        late(sentence) {
          if (current) finish(sentence);
          else refuse(sentence ?? "It did not end and was stopped.");
        },
      });
    });

    function showVerdict() {
      const { verdict: last, solved } = state();
      badge.hidden = !solved;
      if (!last) {
        verdict.replaceChildren();
        verdict.className = "run-verdict";
        return;
      }
      const got = last.parts.reduce((sum, { part, accepted }) => sum + (accepted ? worth[part] ?? 0 : 0), 0);
      const all = last.parts.every(({ accepted }) => accepted);
      const of = parts.reduce((sum, { points }) => sum + points, 0);
      verdict.className = `run-verdict ${all ? "run-accepted" : "run-refused"}`;
      verdict.classList.toggle("run-stale", last.text !== editor.text());
      verdict.replaceChildren(
        make("p", { className: "run-points" }, `${all ? "Right" : "Not yet"}: ${got} of ${of} points`,
          make("span", { className: "run-since", textContent: " (for the code as it was then)" })),
        make("ul", {}, ...last.parts.map(({ part, accepted, sentence }) => make("li", { className: accepted ? "run-yes" : "run-no" },
          make("span", { className: "run-part", textContent: `${part}, ${accepted ? worth[part] : 0} of ${worth[part]}: ` }),
          make("span", { className: "run-sentence", textContent: sentence })))),
      );
    }

    const stop = button("Stop", "run-stop", () => {
      // What has not begun needs no new worker.
      if (python.finish().sent) python.end();
      progress.textContent = "";
      note.textContent = "Stopped.";
      run.focus();
    });

    const reset = careful("Reset", "run-quiet", () => (state().text === null ? "" : "Reset: lose this code"), () => {
      editor.setText(stubText);
      work.set(name, { text: null, verdict: null });
      begin();
      progress.textContent = "";
      showVerdict();
      note.textContent = "The exercise is as it was at first.";
    });

    const hint = button("Hint", "run-quiet", () => {
      const next = hints.find((fold) => !fold.open);
      if (next) {
        next.open = true;
        next.querySelector("summary").focus();
      } else note.textContent = "All hints are open.";
    });

    const show = button("Show solution", "run-quiet", async () => {
      if (!state().tried) {
        note.textContent = "Try first: the solution is shown once you have checked code of your own.";
        return;
      }
      if (solution.hidden) {
        try {
          // Told backwards in base64, so that nobody reads it by accident: it is no secret.
          const answer = await fetch(new URL(`solutions/${name}.txt?v=${course.runner.version}`, home));
          if (!answer.ok) throw new Error(String(answer.status));
          const bytes = Uint8Array.from(atob((await answer.text()).trim()), (letter) => letter.charCodeAt(0)).reverse();
          const pre = make("pre", { tabIndex: 0 }, ...window.normlabEditor.colored(new TextDecoder().decode(bytes).trimEnd()));
          solution.replaceChildren(make("p", { textContent: "One right way among many:" }), make("div", { className: "highlight" }, pre));
        } catch (error) {
          note.textContent = `The solution could not be fetched (${error.message}).`;
          return;
        }
      }
      solution.hidden = !solution.hidden;
      show.textContent = solution.hidden ? "Show solution" : "Hide solution";
      if (!solution.hidden) solution.focus();
    });

    function showTried() {
      show.classList.toggle("run-closed", !state().tried);
    }

    stop.hidden = true;
    python.listeners.add((job) => {
      const mine = job && job.task.owner === name;
      run.disabled = check.disabled = Boolean(job);
      stop.hidden = !mine;
    });

    const buttons = make("div", { className: "run-buttons" }, run, check, stop, reset, ...(hints.length ? [hint] : []), show);
    buttons.setAttribute("role", "group");
    buttons.setAttribute("aria-label", `Code of ${name}`);
    stub.classList.add("run-stub");
    stub.after(make("div", { className: "run" }, editor.element, buttons, keys, progress, note, output, verdict, solution));
    // The other ways to check are in reach, and out of the way.
    const elsewhere = block.querySelector(":scope > .exercise-check");
    const fold = make("details", { className: "run-elsewhere" }, make("summary", { textContent: "In a notebook, or from a terminal" }));
    elsewhere.replaceWith(fold);
    fold.append(elsewhere);

    const exercise = {
      name,
      stubText,
      text: () => editor.text(),
      changed: () => state().text !== null,
      refresh() {
        editor.setText(state().text ?? stubText);
        showVerdict();
        showTried();
        solution.hidden = true;
        show.textContent = "Show solution";
      },
    };
    exercise.refresh();
    exercises.push(exercise);
  }

  /* ---- The page's work as a notebook ---- */

  const chapter = blocks[0].dataset.chapter;
  const gradeId = (cell) => cell?.metadata?.nbgrader?.grade_id;
  const sourceOf = (cell) => (Array.isArray(cell.source) ? cell.source.join("") : String(cell.source ?? ""));
  /* What a learner writes: answers, and predictions, which are code cells without a grade. */
  const isWritten = (cell) => Boolean(cell?.metadata?.nbgrader?.solution);

  async function save(address, said) {
    try {
      const answer = await fetch(address);
      if (!answer.ok) throw new Error(String(answer.status));
      const notebook = await answer.json();
      const others = work.cells(chapter);
      for (const cell of notebook.cells) {
        const mine = exercises.find(({ name }) => name === gradeId(cell));
        const text = mine ? (mine.changed() ? mine.text() : undefined) : others[gradeId(cell) ?? cell.id];
        if (typeof text === "string" && (mine || isWritten(cell) || !cell.metadata?.nbgrader)) cell.source = text;
      }
      const file = new Blob([`${JSON.stringify(notebook, null, 1)}\n`], { type: "application/x-ipynb+json" });
      const link = make("a", { href: URL.createObjectURL(file), download: `${chapter}.ipynb` });
      link.click();
      window.setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      said.textContent = `Saved as ${chapter}.ipynb. In the course's folder it belongs to work/${chapter}/.`;
    } catch (error) {
      said.textContent = `The notebook could not be made (${error.message}).`;
    }
  }

  /* {exercise: text} and the other cells of a learner in a notebook; null where it has none of this page. */
  function taken(notebook) {
    if (!Array.isArray(notebook?.cells)) return null;
    const answers = new Map();
    const others = {};
    for (const cell of notebook.cells) {
      const id = gradeId(cell) ?? cell?.id;
      const mine = exercises.find(({ name }) => name === id);
      if (mine && cell.cell_type === "code") answers.set(mine, sourceOf(cell).replace(/\s+$/, ""));
      else if (id && (isWritten(cell) || (cell.cell_type === "code" && !gradeId(cell)))) others[id] = sourceOf(cell);
    }
    return answers.size ? { answers, others } : null;
  }

  function tools(address) {
    const said = status("div", "run-note");
    const chooser = make("input", { type: "file", accept: ".ipynb,application/json", hidden: true });
    let pending = null;

    function take({ answers, others }) {
      answers.forEach((text, mine) => {
        if (text === mine.text()) return;
        work.set(mine.name, { text: text === mine.stubText ? null : text, verdict: null });
        mine.refresh();
      });
      work.setCells(chapter, others);
      pending = null;
      replace.hidden = true;
      said.textContent = `Loaded ${answers.size} ${answers.size === 1 ? "answer" : "answers"}. Check them here once more.`;
    }

    const replace = button("Replace them", "run-quiet", () => {
      take(pending);
      load.focus();
    });
    replace.hidden = true;
    const load = button("Load a notebook", "run-quiet", () => chooser.click());
    chooser.addEventListener("change", async () => {
      let found = null;
      try { found = taken(JSON.parse(await chooser.files[0].text())); } catch { /* Then it is no notebook. */ }
      chooser.value = "";
      replace.hidden = true;
      if (!found) {
        said.textContent = "This file is no notebook with exercises of this page.";
        return;
      }
      const lost = exercises.filter((mine) => mine.changed() && found.answers.has(mine) && found.answers.get(mine) !== mine.text());
      if (!lost.length) {
        take(found);
        return;
      }
      pending = found;
      replace.hidden = false;
      said.textContent = `It would replace your code here for ${lost.map(({ name }) => name).join(", ")}.`;
    });

    const forget = careful("Forget everything", "run-quiet", () => "Forget the work on all pages, really", () => {
      work.forgetAll();
      exercises.forEach((exercise) => exercise.refresh());
      said.textContent = "All work in this browser is forgotten.";
    });
    const saving = address ? [button("Save as a notebook", "run-quiet", () => save(address, said))] : [];
    return make("div", { className: "run-tools" },
      make("p", {}, "Your work is kept in this browser alone. As a notebook it goes on in JupyterLab, and to whoever grades it."),
      make("div", { className: "run-buttons" }, ...saving, load, replace, forget, chooser), said);
  }

  /* ---- Which exercises there can be here ---- */

  /* A line in place of the editor. */
  function instead(block, ...words) {
    block.querySelector(":scope > .highlight-python").after(make("p", { className: "run-instead" }, ...words));
  }

  const MISSING = {
    PyTorch: "This exercise needs PyTorch, which no browser runs: do it in the notebook, on your machine.",
    Numba: "This exercise needs Numba, which compiles for a real processor: do it in the notebook, on your machine.",
    Triton: "This exercise needs Triton, which no browser runs: do it in the notebook, on your machine (no GPU is needed).",
  };

  const numpy = blocks.filter((block) => !block.dataset.needs);
  blocks.filter((block) => block.dataset.needs).forEach((block) => instead(block, MISSING[block.dataset.needs]));
  if (!course.runner) {
    numpy.forEach((block) => instead(block, "This copy of the site was built without Python for the browser: use the notebook or a terminal, as below."));
  } else if (window.location.protocol === "file:") {
    numpy.forEach((block) => instead(block, "Code runs here when the page comes from a server. In the folder of the site: ",
      make("code", { textContent: "python -m http.server" }), ", then open http://localhost:8000."));
  } else if (typeof WebAssembly !== "object" || typeof Worker !== "function") {
    numpy.forEach((block) => instead(block, "This browser cannot run Python: use the notebook or a terminal, as below."));
  } else if (numpy.length) {
    numpy.forEach(enhance);
    blocks.at(-1).after(tools(blocks.at(-1).querySelector("a.download[href$='.ipynb']")?.href));
  }
})();
