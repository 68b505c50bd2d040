// Files that a person drops, pastes or picks.

/** The largest file that the page sends, in bytes. The server may allow less or more. */
export const MAX_BYTES = 30 * 1024 * 1024;

/** Return `{name, type, size, url}` for each file, whose content is a data URI. Throws an Error for one too large. */
export function readFiles(list) {
  return Promise.all([...list].map(readFile));
}

function readFile(file) {
  if (file.size > MAX_BYTES) {
    throw new Error(`${file.name} is larger than ${MAX_BYTES / 1024 / 1024} MB. Send it through /v1/files.`);
  }
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve({ name: file.name, type: file.type, size: file.size, url: reader.result });
    reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

/** Return a size in bytes for people. */
export function shownSize(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${Math.round(bytes / 1024)} kB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}
