//! The page as a person uses it: what is typed, clicked and seen in one tab.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use xtask::browser::{Browser, Tab, Visitor};

/// A picture, however slow the machine is just then.
const PICTURE_PATIENCE: Duration = Duration::from_secs(240);

/// A file of some kilobytes from this machine.
const DOWNLOAD_PATIENCE: Duration = Duration::from_secs(30);

/// What is to be painted.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The prompt.
    pub prompt: &'static str,
    /// `WIDTHxHEIGHT`.
    pub size: &'static str,
    /// Denoising steps.
    pub steps: u32,
    /// The seed.
    pub seed: u64,
}

/// A tab with the page in it.
pub struct Page {
    /// The tab.
    pub tab: Tab,
}

impl Page {
    /// A visitor's first look at `link`; `query` is what stands between `?` and `#`.
    pub fn open(browser: &Browser, link: &str, query: &str) -> Self {
        Self::of(&browser.visitor().expect("a visitor comes"), link, query)
    }

    /// Another tab of a visitor.
    pub fn of(visitor: &Visitor, link: &str, query: &str) -> Self {
        let address = link.replacen('#', &format!("?{query}#"), 1);
        let tab = visitor.tab(&address).expect("a tab opens");
        tab.wait("window.manyhands?.state()").expect("the page starts");
        Self { tab }
    }

    /// Waits until the engine has passed its test.
    pub fn wait_for_engine(&self) {
        self.tab
            .wait_within("document.querySelector('[data-testid=engine]').dataset.state === 'ready'", PICTURE_PATIENCE)
            .expect("the engine gets ready");
    }

    /// Waits for another member that lends, is reached over `path`, and, if not empty, is called `name`; its peer id.
    pub fn wait_for_peer(&self, name: &str, path: &str) -> String {
        let found = self.tab.wait(&format!(
            "[...document.querySelectorAll('[data-testid=peer]')].find((peer) => peer.dataset.me === 'false' && \
             peer.dataset.lends === 'true' && peer.dataset.path === {path:?} && \
             peer.textContent.includes({name:?}))?.dataset.peer"
        ));
        found.expect("the peer comes").as_str().expect("a peer id is text").to_owned()
    }

    /// Fills the form in.
    pub fn fill(&self, wish: Wish) {
        let fields = [
            ("prompt", wish.prompt.to_owned()),
            ("size", wish.size.to_owned()),
            ("steps", wish.steps.to_string()),
            ("seed", wish.seed.to_string()),
        ];
        for (name, text) in fields {
            self.tab.fill(&format!("[data-testid={name}]"), &text).expect("a field takes text");
        }
    }

    /// Begins a picture, and waits until its first unit is in.
    pub fn begin(&self, wish: Wish) {
        self.fill(wish);
        self.tab.click("[data-testid=paint]").expect("the button can be clicked");
        self.wait_for_units(1);
    }

    /// Waits until the picture under way has this many units, or is done.
    pub fn wait_for_units(&self, units: u32) {
        let patience = PICTURE_PATIENCE;
        let progress = "document.querySelector('[data-testid=progress]')";
        self.tab
            .wait_within(&format!("{progress}.dataset.units >= {units} && !{progress}.hidden"), patience)
            .expect("units come in");
    }

    /// Paints, and waits for the picture: the SHA-256 of its pixels.
    pub fn paint(&self, wish: Wish) -> String {
        self.forget_picture();
        self.fill(wish);
        self.tab.click("[data-testid=paint]").expect("the button can be clicked");
        self.wait_for_picture()
    }

    /// Paints what the form says; whether a picture came rather than a sentence.
    pub fn paints(&self) -> bool {
        self.forget_picture();
        self.tab.click("[data-testid=paint]").expect("the button can be clicked");
        !self.outcome().starts_with("failed")
    }

    /// Waits for a picture that was not seen before: the SHA-256 of its pixels.
    pub fn wait_for_picture(&self) -> String {
        let sha = self.outcome();
        assert!(!sha.starts_with("failed"), "{sha}");
        sha
    }

    fn outcome(&self) -> String {
        let picture = "document.querySelector('[data-testid=picture]')";
        let fresh = format!("!{picture}.hidden && {picture}.dataset.sha256");
        let sha = self.tab.wait_within(
            &format!(
                "(() => {{ const error = document.querySelector('[data-testid=error]'); \
                 return !error.hidden ? 'failed: ' + error.textContent : {fresh}; }})()"
            ),
            PICTURE_PATIENCE,
        );
        sha.expect("the picture is finished").as_str().expect("a hash is text").to_owned()
    }

    /// Makes the next picture tell from the one shown, also if both are the same.
    pub fn forget_picture(&self) {
        self.tab
            .eval("delete document.querySelector('[data-testid=picture]').dataset.sha256")
            .expect("an attribute can be removed");
    }

    /// RGB rows of the picture that is shown.
    pub fn pixels(&self) -> Vec<u8> {
        let values = self.tab.eval(
            // Shown, it may still be being decoded.
            "(async () => { const picture = document.querySelector('[data-testid=picture]'); await picture.decode(); \
             const [width, height] = [picture.naturalWidth, picture.naturalHeight]; \
             const canvas = new OffscreenCanvas(width, height).getContext('2d'); canvas.drawImage(picture, 0, 0); \
             return [...canvas.getImageData(0, 0, width, height).data]; })()",
        );
        let values = values.expect("the picture can be read");
        let bytes = values.as_array().expect("pixels are a list").iter();
        let bytes: Vec<u8> = bytes.map(|byte| byte.as_u64().expect("a byte") as u8).collect();
        bytes.chunks_exact(4).flat_map(|rgba| rgba[..3].to_vec()).collect()
    }

    /// Downloads the picture that is shown into this folder: its file.
    pub fn download(&self, folder: &Path) -> PathBuf {
        let into = json!({ "behavior": "allow", "downloadPath": folder });
        self.tab.call("Page.setDownloadBehavior", into).expect("downloads can be allowed");
        let link = "document.querySelector('[data-testid=download]')";
        let name = self.tab.eval(&format!("{link}.download")).expect("the link is there");
        let file = folder.join(name.as_str().expect("a name is text"));
        self.tab.click("[data-testid=download]").expect("the link can be clicked");
        let end = Instant::now() + DOWNLOAD_PATIENCE;
        // The browser gives a file its name when it is whole.
        while !file.exists() {
            assert!(Instant::now() < end, "{} does not come", file.display());
            self.tab.eval("new Promise((resolve) => setTimeout(resolve, 20))").expect("time passes in the page");
        }
        file
    }

    /// Units delivered to this page for its pictures, by the peer that did them.
    pub fn units_of(&self, peer: &str) -> u64 {
        let selector = format!("[data-testid=peer][data-peer=\"{peer}\"]");
        let units = self.tab.eval(&format!("document.querySelector({selector:?})?.dataset.units ?? '0'"));
        units.expect("peers are shown").as_str().and_then(|units| units.parse().ok()).expect("units are a number")
    }

    /// This page's own peer id.
    pub fn me(&self) -> String {
        let me = self.tab.wait("document.querySelector('[data-testid=peer][data-me=true]')?.dataset.peer");
        me.expect("the page shows itself").as_str().expect("a peer id is text").to_owned()
    }

    /// Waits until so many peers are shown, this page among them.
    pub fn wait_for_peers(&self, count: u64, patience: Duration) {
        let condition = format!("document.querySelectorAll('[data-testid=peer]').length === {count}");
        self.tab.wait_within(&condition, patience).expect("peers come and go");
    }

    /// Fails if a script threw, or did what the page's policy forbids.
    pub fn assert_clean(&self) {
        assert!(self.tab.uncaught().is_empty(), "{:?}", self.tab.testimony());
        assert!(self.tab.violations().is_empty(), "{:?}", self.tab.violations());
    }
}
