// A static student: a few numbers for every token, one for each class, and the mean over the tokens of a text. No library.
// The tokenizer is BERT's: WordPiece, as Hugging Face's tokenizers reads it.

const { reader } = card;
let ids = new Map(), scores = null;

function cleaned(text) {
  let letters = [...text];
  if (reader.clean) {
    const control = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\ufffd]/u;  // of \p{C} not Cn: an unassigned letter stays, and is unknown
    letters = letters.filter((letter) => /[\t\n\r]/.test(letter) || !control.test(letter));
    letters = letters.map((letter) => (/\s/.test(letter) ? " " : letter));
  }
  if (reader.ideographs) {  // each is a word
    const ideograph = /[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/u;
    letters = letters.map((letter) => (ideograph.test(letter) ? ` ${letter} ` : letter));
  }
  if (reader.strip) letters = [...letters.join("").normalize("NFD").replace(/\p{Mn}/gu, "")];
  if (reader.lower) letters = letters.map((letter) => letter.toLowerCase());  // one by one: no final sigma
  return letters.join("");
}

function pieces(word) {  // the longest known beginning, then the longest that goes on from there
  const letters = [...word], found = [];
  if (letters.length > reader.longest) return [reader.unknown];
  for (let start = 0, end; start < letters.length; start = end) {
    const piece = () => (start ? reader.inside : "") + letters.slice(start, end).join("");
    for (end = letters.length; end > start && !ids.has(piece()); end--);
    if (end === start) return [reader.unknown];
    found.push(piece());
  }
  return found;
}

function tokens(text) {
  const found = [];
  for (const [index, part] of text.split(new RegExp(`(${reader.special})`)).entries()) {
    if (index % 2) found.push(part);  // a special token, spelt out
    else for (const word of cleaned(part).match(/[\p{P}$+<=>^`|~]|[^\s\p{P}$+<=>^`|~]+/gu) ?? []) found.push(...pieces(word));
  }
  const from = reader.side === "left" ? Math.max(0, found.length - reader.room) : 0;
  return [...reader.begin, ...found.slice(from, from + reader.room).map((token) => ids.get(token)), ...reader.end];
}

function classified(text) {
  const read = tokens(text), count = reader.labels.length, divisor = read.length || 1;  // a text may have no token
  const sum = (at) => read.reduce((all, id) => all + scores[id * count + at], 0);
  const logits = reader.bias.map((bias, at) => bias + sum(at) / divisor);
  const powers = logits.map((logit) => Math.exp(logit - Math.max(...logits))), all = powers.reduce((a, b) => a + b);
  return reader.labels.map((label, at) => ({ label, score: powers[at] / all })).sort((a, b) => b.score - a.score);
}

async function load() {
  ids = new Map((await held("vocabulary.txt").text()).split("\n").map((token, id) => [token, id]));
  scores = new Float32Array(await held("scores.bin").arrayBuffer());
  classify = async (text) => classified(text);
}
