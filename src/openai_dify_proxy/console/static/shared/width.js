// Whether the page is wider than a phone.

import { useEffect, useState } from "../vendor/preact.js";

const WIDE = matchMedia("(min-width: 721px)"); // as in console.css

/** Return whether the page is wide, and render again when that changes. */
export function useWide() {
  const [wide, setWide] = useState(WIDE.matches);
  useEffect(() => {
    const update = () => setWide(WIDE.matches);
    WIDE.addEventListener("change", update);
    return () => WIDE.removeEventListener("change", update);
  }, []);
  return wide;
}
