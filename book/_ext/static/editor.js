/* An editor for a few lines of Python: a plain text field, so that keyboards, phones and screen readers know it, over the
   same text in color. Tab indents for who writes; for who only passes, and after Escape, it leaves the field. */
"use strict";

(function () {
  const KEYWORDS = new Set(("False None True and as assert async await break class continue def del elif else except finally "
    + "for from global if import in is lambda nonlocal not or pass raise return try while with yield").split(" "));
  const BUILTINS = new Set(("abs all any bool dict enumerate float int isinstance iter len list map max min next print range "
    + "reversed round set sorted str sum tuple type zip ValueError TypeError NotImplementedError Exception").split(" "));
  const TOKEN = new RegExp([
    "(?<c1>#[^\\n]*)",
    "(?<s1>[rbfRBF]{0,2}(?:\"\"\"[^]*?(?:\"\"\"|$)|'''[^]*?(?:'''|$)|\"(?:\\\\.|[^\"\\\\\\n])*\"?|'(?:\\\\.|[^'\\\\\\n])*'?))",
    "(?<mf>(?:\\b\\d|\\.\\d)[\\w.]*(?:(?<=[eE])[+-]\\d+)?)",
    "(?<word>[\\p{L}_][\\p{L}\\p{N}_]*)",
    "(?<o>[-+*/%@&|^~<>=!]+)",
  ].join("|"), "gu");

  /* The text as nodes, in the classes that the site's code blocks have. */
  function colored(text) {
    const nodes = [];
    let [end, before] = [0, ""];
    for (const match of text.matchAll(TOKEN)) {
      let [kind] = Object.entries(match.groups).find(([, found]) => found !== undefined);
      const [word] = match;
      if (kind === "word") {
        kind = KEYWORDS.has(word) ? "k" : before === "def" ? "nf" : before === "class" ? "nc" : BUILTINS.has(word) ? "nb" : "n";
        before = word;
      }
      const piece = document.createElement("span");
      piece.className = kind;
      piece.textContent = word;
      nodes.push(text.slice(end, match.index), piece);
      end = match.index + word.length;
    }
    // A last line without anything in it has a height only if something follows.
    nodes.push(`${text.slice(end)}\n`);
    return nodes;
  }

  const INDENT = "    ";

  /* Replaces what is selected as typing would, so that the browser can undo it. */
  function type(field, text) {
    if (!document.execCommand("insertText", false, text)) {
      field.setRangeText(text, field.selectionStart, field.selectionEnd, "end");
      field.dispatchEvent(new Event("input"));
    }
  }

  function lineBefore(field) {
    const { value, selectionStart } = field;
    return value.slice(value.lastIndexOf("\n", selectionStart - 1) + 1, selectionStart);
  }

  /* Moves the selected lines one step to the right, or to the left. */
  function shift(field, right) {
    const { value } = field;
    const first = value.lastIndexOf("\n", field.selectionStart - 1) + 1;
    const next = value.indexOf("\n", field.selectionEnd);
    const last = next < 0 ? value.length : next;
    const lines = value.slice(first, last).split("\n");
    const moved = lines.map((line) => (right ? (line && INDENT) + line : line.replace(/^ {1,4}/, ""))).join("\n");
    field.setSelectionRange(first, last);
    type(field, moved);
    field.setSelectionRange(lines.length > 1 ? first : first + moved.length, first + moved.length);
  }

  function keys(field, event, writing) {
    const line = lineBefore(field);
    const collapsed = field.selectionStart === field.selectionEnd;
    if (event.isComposing || event.altKey) return;
    if ((event.ctrlKey || event.metaKey) && (event.key === "]" || event.key === "[")) {
      event.preventDefault();
      shift(field, event.key === "]");
    } else if (event.key === "Tab" && writing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      if (event.shiftKey || !collapsed) shift(field, !event.shiftKey);
      else type(field, INDENT.slice(line.length % INDENT.length));
    } else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      type(field, `\n${line.match(/^ */)[0]}${/:\s*(#.*)?$/.test(line) ? INDENT : ""}`);
    } else if (event.key === "Backspace" && collapsed && !event.ctrlKey && /^ +$/.test(line)) {
      event.preventDefault();
      field.setSelectionRange(field.selectionStart - (((line.length - 1) % 4) + 1), field.selectionStart);
      document.execCommand("delete");
    }
  }

  /* {element, field, text, setText} of a new editor; `changed` is called when somebody types. */
  function editor(label, text, changed) {
    const field = document.createElement("textarea");
    const shown = document.createElement("pre");
    // No div: the copy button looks for those.
    const element = document.createElement("section");
    element.className = "editor highlight";
    field.setAttribute("aria-label", label);
    for (const [name, value] of [["spellcheck", "false"], ["autocomplete", "off"], ["autocapitalize", "off"], ["autocorrect", "off"],
      ["wrap", "off"], ["translate", "no"]]) field.setAttribute(name, value);
    shown.setAttribute("aria-hidden", "true");
    element.append(shown, field);

    const draw = () => shown.replaceChildren(...colored(field.value));
    let writing = false;
    field.addEventListener("focus", () => { writing = false; });
    field.addEventListener("click", () => { writing = true; });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") writing = false;
      else if (!["Tab", "Shift", "Control", "Alt", "Meta"].includes(event.key)) writing = true;
      keys(field, event, writing);
    });
    field.addEventListener("input", () => { draw(); changed(); });
    const setText = (value) => { field.value = value; draw(); };
    setText(text);
    return { element, field, setText, text: () => field.value };
  }

  editor.colored = colored;
  window.normlabEditor = editor;
})();
