// The frame of the page: navigation, theme and sign-in. The address behind `#` names the view.

import { html, render, useEffect, useState } from "./vendor/preact.js";
import { SignIn, signOut, useSession } from "./session/view.js";
import { Failure, Loading } from "./shared/states.js";
import { Apps } from "./apps/view.js";
import { Keys } from "./keys/view.js";
import { Pictures } from "./pictures/view.js";
import { Playground } from "./playground/view.js";
import { Traffic } from "./traffic/view.js";

const VIEWS = {
  playground: { title: "Playground", view: Playground },
  pictures: { title: "Pictures", view: Pictures },
  apps: { title: "Apps", view: Apps },
  traffic: { title: "Traffic", view: Traffic },
  keys: { title: "Keys", view: Keys },
};
const THEMES = ["auto", "light", "dark"];
const ICON = new URL("icon.svg", import.meta.url).href;

function App() {
  const [name, argument] = useAddress();
  const { title, view: View } = VIEWS[name] ?? VIEWS.playground;
  const [session, reload] = useSession();
  useEffect(() => {
    document.title = `${title} – OpenAI Dify Proxy`;
  }, [title]);
  return html`
    <a class="skip" href="#main" onClick=${focusMain}>Skip to the content</a>
    <header>
      <h1><a class="brand" href="#playground"><img src=${ICON} alt="" width="26" height="26" />OpenAI Dify Proxy</a></h1>
      <nav aria-label="Views">
        ${Object.entries(VIEWS).map(([id, { title: label }]) => html`<a href=${`#${id}`} aria-current=${label === title ? "page" : undefined}>${label}</a>`)}
      </nav>
      <${Theme} />
      ${session?.signed_in && html`<button type="button" class="quiet" onClick=${() => signOut(reload)}>Sign out${session.name && html`<span class="account"> ${session.name}</span>`}</button>`}
    </header>
    <main id="main" tabindex="-1"><${Content} session=${session} reload=${reload} name=${name} view=${View} argument=${argument} /></main>
  `;
}

function Content({ session, reload, name, view: View, argument }) {
  if (!session) return html`<${Loading} what="the console" />`;
  if (session.error) return html`<${Failure} error=${session.error} retry=${reload} />`;
  if (session.needs_key && !session.signed_in) return html`<${SignIn} session=${session} reload=${reload} />`;
  return html`<${View} key=${`${name} ${session.signed_in}`} chosen=${argument} session=${session} reloadSession=${reload} />`;
}

function focusMain(event) {
  event.preventDefault(); // the address names the view
  document.getElementById("main").focus();
}

/** The view and its argument in the address: `#apps/support` is `["apps", "support"]`. */
function useAddress() {
  const [address, setAddress] = useState(location.hash);
  useEffect(() => {
    const update = () => setAddress(location.hash);
    addEventListener("hashchange", update);
    return () => removeEventListener("hashchange", update);
  }, []);
  const [name, ...rest] = address.slice(1).split("/");
  return [name || "playground", decodeURIComponent(rest.join("/"))];
}

function Theme() {
  const [theme, setTheme] = useState(localStorage.getItem("theme") ?? "auto");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  const choose = (name) => {
    localStorage.setItem("theme", name);
    setTheme(name);
  };
  return html`<label class="theme"><span class="hidden">Theme</span>
    <select value=${theme} onChange=${(event) => choose(event.target.value)}>
      ${THEMES.map((name) => html`<option value=${name}>${name[0].toUpperCase() + name.slice(1)}</option>`)}
    </select></label>`;
}

render(html`<${App} />`, document.getElementById("app"));
