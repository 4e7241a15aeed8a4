//! Names and prompts that try to be more than text stay text, in the page of who wrote them and of who sees them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use tests::page::Page;
use tests::site::{Site, browser};

/// What the payloads would call, were one of them run.
const TRAP: &str = "window.sprung = []; window.spring = (what) => window.sprung.push(what);";

/// Ways to smuggle a script into a page, by element, attribute, URL, encoding, and the page's own formats.
const HOSTILE: [&str; 50] = [
    "<script>spring(1)</script>",
    "<img src=x onerror=spring(1)>",
    "<svg onload=spring(1)>",
    "<svg><script>spring(1)</script></svg>",
    "<iframe srcdoc='<script>parent.spring(1)</script>'>",
    "<body onload=spring(1)>",
    "<a href=javascript:spring(1)>x</a>",
    "javascript:spring(1)",
    "\"><script>spring(1)</script>",
    "'><img src=x onerror=spring(1)>",
    "</textarea><script>spring(1)</script>",
    "</title><script>spring(1)</script>",
    "</script><script>spring(1)</script>",
    "<!--<img src=--><img src=x onerror=spring(1)>",
    "<details open ontoggle=spring(1)>",
    "<video><source onerror=spring(1)>",
    "<audio src=x onerror=spring(1)>",
    "<input autofocus onfocus=spring(1)>",
    "<math><mi xlink:href='data:x,<script>spring(1)</script>'>",
    "<object data=javascript:spring(1)>",
    "<embed src=javascript:spring(1)>",
    "<form action=javascript:spring(1)><input type=submit>",
    "<button formaction=javascript:spring(1)>x",
    "<link rel=stylesheet href=data:,*{x:expression(spring(1))}>",
    "<style>@import 'javascript:spring(1)';</style>",
    "<base href=//evil.invalid/>",
    "<meta http-equiv=refresh content='0;javascript:spring(1)'>",
    "<template><script>spring(1)</script></template>",
    "<p style=background:url(javascript:spring(1))>",
    "<x onclick=spring(1)>click</x>",
    "<img src='x' onerror='spring(1)' //",
    "<IMG SRC=JaVaScRiPt:spring(1)>",
    "<img/src=x/onerror=spring(1)>",
    "<sCrIpT>spring(1)</ScRiPt>",
    "&lt;script&gt;spring(1)&lt;/script&gt;",
    "&#60;script&#62;spring(1)&#60;/script&#62;",
    "\u{0}<script>spring(1)</script>",
    "%3Cscript%3Espring(1)%3C/script%3E",
    "{{constructor.constructor('spring(1)')()}}",
    "${spring(1)}",
    "`-spring(1)-`",
    "';spring(1);//",
    "\");spring(1);(\"",
    "__proto__",
    "constructor",
    "\u{202e}txet desrever",
    "\u{feff}\u{200b}invisible\u{2066}",
    "\n\r\nSet-Cookie: a=b\r\n",
    "]]><script>spring(1)</script>",
    "Steps: 1, Seed: 2, \"Negative prompt: x",
];

#[test]
fn fifty_hostile_names_and_prompts_run_nothing() {
    let Some(browser) = browser(&[]) else { return };
    let site = Site::open();
    let link = site.room();
    let (author, reader) = (browser.visitor().unwrap(), browser.visitor().unwrap());
    let open = |visitor, query| {
        let page = Page::of(visitor, &link, query);
        page.tab.before_every_page(TRAP).unwrap();
        page.tab.reload().unwrap();
        page.tab.wait("window.sprung && window.manyhands?.state()").unwrap();
        page
    };
    let author = open(&author, "engine=cpu&lend=1&name=author");
    let reader = open(&reader, "engine=cpu&lend=0&name=reader");
    author.wait_for_engine();
    let peer = reader.wait_for_peer("author", "direct (webrtc)");
    for (index, text) in HOSTILE.iter().enumerate() {
        // The mark says which name the reader sees; what is around it is as hostile as it came.
        let name: String = format!("{index}.{text}").chars().take(32).collect();
        author.tab.fill("[data-testid=name]", &name).unwrap();
        author.tab.eval("document.querySelector('[data-testid=name]').blur()").unwrap();
        let shown = format!(
            "document.querySelector('[data-peer=\"{peer}\"] [data-part=name]')?.textContent.includes('{index}.')"
        );
        reader.tab.wait(&shown).unwrap();
    }
    let mut painted = 0;
    for (index, text) in HOSTILE.iter().enumerate() {
        // Painted for every fifth, where it passes through job, plan, picture, recipe and history; typed for all.
        reader.tab.fill("[data-testid=prompt]", text).unwrap();
        if index % 5 == 0 {
            for (name, value) in [("negative", "fog"), ("size", "64x64"), ("steps", "1"), ("seed", "1")] {
                reader.tab.fill(&format!("[data-testid={name}]"), value).unwrap();
            }
            // Some are longer than the model reads: then the end that it would lose is shown in a sentence.
            painted += usize::from(reader.paints());
        } else {
            reader.tab.fill("[data-testid=negative]", text).unwrap();
        }
    }
    eprintln!("{painted} painted");
    assert!(painted >= 3, "{painted}");
    reader.tab.reload().unwrap();
    let kept = format!("document.querySelectorAll('[data-testid=recent-picture]').length >= {painted}");
    reader.tab.wait(&kept).unwrap();
    for page in [&author, &reader] {
        assert_eq!(page.tab.eval("window.sprung.length").unwrap(), 0);
        page.assert_clean();
    }
}
