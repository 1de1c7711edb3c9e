// The page at "/": reads the languages, sends one record, shows what comes back.
"use strict";

const at = (id) => document.getElementById(id);
const [form, from, to, text, output] = ["form", "from", "to", "text", "output"].map(at);
const REMEMBERED = "dragoman.pair";
const KEY = "dragoman.key";
const FIRST_PAIR = ["en", "ja"];
const LANGUAGES_RETRY_MS = 3000;
const PATIENCE_MS = 120_000; // how long a person waits here; the server is told
const MAX_CHARS = 10_000; // the server takes no more in one text

class Locked extends Error {}

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(REMEMBERED)) || FIRST_PAIR;
  } catch {
    return FIRST_PAIR;
  }
}

function remember() {
  try {
    localStorage.setItem(REMEMBERED, JSON.stringify([from.value, to.value]));
  } catch {
    // A browser that keeps nothing starts with the first pair again.
  }
}

// The key typed into this tab, where the server asks for one. A browser that keeps nothing has it
// until the page is left.
let typed = "";

function key() {
  try {
    return sessionStorage.getItem(KEY) || typed;
  } catch {
    return typed;
  }
}

function keepKey(text) {
  typed = text;
  try {
    sessionStorage.setItem(KEY, text);
  } catch {
    // As above.
  }
}

// The body of an answer, or an Error whose message a person can act on.
async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Check that it runs, then try again.");
  }
  if (answer.status === 401) {
    at("door").hidden = false;
    at("key").focus();
    throw new Locked(key() ? "The server does not know this API key." : "The server asks for an API key.");
  }
  let body;
  try {
    body = await answer.json();
  } catch {
    throw new Error(`The server answered with status ${answer.status} and nothing readable.`);
  }
  if (!answer.ok && !body.result) throw new Error(reason(answer, body));
  return body;
}

// What a problem says to a person; a header is nothing that they can set.
function reason(answer, body) {
  if (body.code !== "too_late") return body.detail || `Status ${answer.status}.`;
  const wait = Math.round(body.estimatedSeconds);
  return `The service is busy: this would wait for about ${wait} s. Try again in ${answer.headers.get("Retry-After")} s.`;
}

function fill(select, languages, chosen, otherwise) {
  select.replaceChildren(...languages.map(({ code, name }) => new Option(name, code)));
  select.value = chosen;
  if (select.selectedIndex < 0) select.selectedIndex = Math.min(otherwise, languages.length - 1);
  select.disabled = false;
}

async function readLanguages() {
  try {
    const { languages } = await ask("languages");
    languages.sort((a, b) => a.name.localeCompare(b.name));
    const [first, second] = remembered();
    fill(from, languages, first, 0);
    fill(to, languages, second, 1);
    at("go").disabled = false;
    complain("");
  } catch (error) {
    complain(error.message);
    if (!(error instanceof Locked)) setTimeout(readLanguages, LANGUAGES_RETRY_MS);
  }
}

function complain(message) {
  if (at("error").textContent !== message) at("error").textContent = message; // else it is read out again
}

function chars() {
  return [...text.value].length;
}

function count() {
  const most = MAX_CHARS.toLocaleString("en");
  at("count").textContent = `${chars().toLocaleString("en")} of ${most} characters`;
  at("count").classList.toggle("over", chars() > MAX_CHARS);
}

// The translation that is being waited for: whoever aborts it makes the server drop its work.
let running = null;

function stop() {
  running?.abort();
}

async function translate() {
  const began = performance.now();
  const mine = (running = new AbortController());
  complain("");
  at("timing").textContent = "Translating…";
  at("copy").hidden = true;
  at("stop").hidden = false;
  at("go").setAttribute("aria-disabled", "true"); // not disabled: that would lose the focus
  output.value = "";
  output.lang = to.value;
  const records = [{ id: 1, text: text.value }];
  const body = JSON.stringify({ payload: { fromLang: from.value, records, toLang: to.value } });
  try {
    const headers = { "Content-Type": "application/json", "X-Deadline-Ms": PATIENCE_MS };
    const { result } = await ask("translation", { method: "POST", headers, body, signal: mine.signal });
    if (result[0].error) throw new Error(result[0].error.detail);
    output.value = result[0].text;
    at("timing").textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`;
    at("copy").hidden = !navigator.clipboard;
  } catch (error) {
    const stopped = mine.signal.aborted;
    at("timing").textContent = stopped ? "Stopped" : "";
    if (!stopped) complain(error.message);
  } finally {
    running = null;
    if (document.activeElement === at("stop")) at("go").focus();
    at("stop").hidden = true;
    at("go").removeAttribute("aria-disabled");
  }
}

at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(at("key").value.trim());
  at("key").value = "";
  at("door").hidden = true;
  readLanguages();
});

function mistake() {
  if (!text.value.trim()) return { where: text, message: "Type some text first." };
  const excess = chars() - MAX_CHARS;
  if (excess > 0) {
    return { where: text, message: `The text is ${excess.toLocaleString("en")} characters too long. Shorten it.` };
  }
  if (from.value === to.value) return { where: to, message: "Choose two different languages." };
  return null;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running || at("go").disabled) return; // Ctrl + Enter comes here all the same
  const flaw = mistake();
  if (flaw) {
    complain(flaw.message);
    flaw.where.focus();
    return;
  }
  translate();
});

text.addEventListener("input", count);
form.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  form.requestSubmit(at("go"));
});

for (const select of [from, to]) select.addEventListener("change", remember);

at("stop").addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});

at("swap").addEventListener("click", () => {
  stop(); // what comes would be in the other language
  [from.value, to.value] = [to.value, from.value];
  if (output.value) [text.value, output.value] = [output.value, ""];
  remember();
  count();
});

at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(output.value);
    at("timing").textContent = "Copied";
  } catch {
    output.select(); // not allowed here: a key press away
    at("timing").textContent = "Press Ctrl + C to copy";
  }
});

count();
readLanguages();
