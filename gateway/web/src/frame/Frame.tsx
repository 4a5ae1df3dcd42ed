/** The frame: which screens there are for this key, which one is open, and what runs. */

import { useEffect, useRef } from "preact/hooks";
import { Button } from "../components/Button";
import { Empty } from "../components/Empty";
import { Icon } from "../components/Icon";
import { Lazy } from "../components/Lazy";
import { Toasts } from "../components/Toasts";
import { signOut } from "../gateway/entrance";
import { role } from "../gateway/live";
import { go, href, route, type ScreenName } from "../router";
import { Panels, SwitcherButton } from "../switcher/Panels";
import { screens as names } from "../texts/en/common";
import { frame as t } from "../texts/en/frame";
import { Boundary } from "./Boundary";
import { BoxMenu } from "./BoxMenu";
import { ConnectionNote } from "./ConnectionNote";
import { closeDrawer, drawerOpen, openDrawer, watchDrawer } from "./drawer";
import { Foot } from "./Foot";
import { ModelState } from "./ModelState";
import { NewVersion } from "./NewVersion";
import { allowedScreens } from "./screens";
import { useTitle } from "./title";
import { topbar } from "./topbar";
import "./frame.css";

const LOAD = {
  chat: () => import("../screens/chat/Chat"),
  models: () => import("../screens/models/Models"),
  activity: () => import("../screens/activity/Activity"),
  keys: () => import("../screens/keys/Keys"),
  usage: () => import("../screens/usage/Usage"),
  system: () => import("../screens/system/System"),
} as const;

export function Frame() {
  const allowed = allowedScreens(role.value);
  const { screen, rest } = route.value;
  const may = allowed.includes(screen);
  const open = drawerOpen.value;
  const main = useRef<HTMLElement>(null);
  const menu = useRef<HTMLDivElement>(null);
  const before = useRef(screen);
  useTitle(names[screen]);
  useEffect(() => watchDrawer(), []);
  useEffect(() => {
    if (!open) return;
    // When the sidebar is in sight: what is hidden takes no focus.
    const frame = requestAnimationFrame(() => {
      const links = [...(menu.current?.querySelectorAll<HTMLElement>("nav a") ?? [])];
      (links.find((one) => one.hasAttribute("aria-current")) ?? links[0])?.focus();
    });
    return () => cancelAnimationFrame(frame);
  }, [open]);
  useEffect(() => {
    // Who listens to the page instead of seeing it is taken to the screen that has opened.
    if (before.current !== screen) main.current?.focus({ preventScroll: true });
    before.current = screen;
  }, [screen]);
  return (
    <div class="frame">
      {/* No link: "#main" would take the place of the screen's name in the address. */}
      <button type="button" class="button skip" onClick={() => main.current?.focus()}>
        {t.skip}
      </button>
      <div
        class={open ? "sidebar open" : "sidebar"}
        id="menu"
        ref={menu}
        aria-label={t.menuName}
        {...(open
          ? { role: "dialog" as const, "aria-modal": true }
          : { role: "complementary" as const })}
      >
        <BoxMenu />
        <SwitcherButton onOpen={() => drawerOpen.value && closeDrawer()} />
        <nav aria-label={t.navigation}>
          {allowed.map((one) => (
            <a
              key={one}
              href={href(one)}
              aria-current={one === screen ? "page" : undefined}
              onClick={(event) => {
                if (!drawerOpen.value || event.ctrlKey || event.metaKey) return;
                event.preventDefault();
                // In place of the drawer's own step in the history.
                go(href(one), true);
                closeDrawer(false);
              }}
            >
              <Icon name={one} /> {names[one]}
            </a>
          ))}
        </nav>
        <Foot />
      </div>
      {open && <div class="shade" onClick={() => closeDrawer()} />}
      <div class="content" inert={open}>
        <header class="topbar">
          <Button
            kind="plain"
            label={t.menu}
            aria-expanded={open}
            aria-controls="menu"
            onClick={openDrawer}
          >
            <Icon name="menu" />
          </Button>
          <strong>{names[screen]}</strong>
          <div class="slot">
            {/* The chat shows its model itself, as soon as it is there. */}
            {topbar.value ?? (screen === "chat" ? null : <ModelState />)}
          </div>
        </header>
        <ConnectionNote />
        <NewVersion />
        <main id="main" tabIndex={-1} ref={main}>
          <Boundary place={href(screen, ...rest)}>
            {may ? <Lazy load={LOAD[screen]} /> : <NotAllowed screen={screen} />}
          </Boundary>
        </main>
      </div>
      <Panels />
      <Toasts />
    </div>
  );
}

/** For who has followed an admin's link. */
function NotAllowed({ screen }: { readonly screen: ScreenName }) {
  return (
    <section class="screen">
      <h1 class="in-topbar">{names[screen]}</h1>
      <Empty title={t.adminOnly}>
        <p>
          {t.adminHow} <code>{t.adminCommand}</code>
        </p>
        <Button onClick={signOut}>{t.otherKey}</Button>
      </Empty>
    </section>
  );
}
