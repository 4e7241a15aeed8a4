//! What index.html promises to scripts, to people and to the view.

const HTML: &str = include_str!("../../web/index.html");

const SCRIPTS: [&str; 2] = [include_str!("../../web/boot.js"), include_str!("../../web/sw.js")];

const VIEW: [&str; 7] = [
    include_str!("view.rs"),
    include_str!("view/here.rs"),
    include_str!("view/listen.rs"),
    include_str!("view/places.rs"),
    include_str!("view/queue.rs"),
    include_str!("view/recent.rs"),
    include_str!("view/stage.rs"),
];

/// The tags of the document: name and text up to `>`.
fn tags() -> Vec<(&'static str, &'static str)> {
    let tag = |piece: &'static str| {
        let text = piece.split('>').next().unwrap();
        (text.split([' ', '\n']).next().unwrap(), text)
    };
    HTML.split('<').skip(1).filter(|piece| !piece.starts_with(['/', '!'])).map(tag).collect()
}

fn value<'a>(tag: &'a str, attribute: &str) -> Option<&'a str> {
    tag.split(&format!(" {attribute}=\"")).nth(1)?.split('"').next()
}

fn ids() -> Vec<&'static str> {
    tags().into_iter().filter_map(|(_, tag)| value(tag, "id")).collect()
}

#[test]
fn every_hook_that_scripts_and_tests_rely_on_is_there_once() {
    let hooks = [
        "prompt",
        "negative",
        "size",
        "steps",
        "guidance",
        "seed",
        "count",
        "quality",
        "paint",
        "cancel",
        "picture",
        "preview",
        "progress",
        "plan",
        "peers",
        "peer",
        "share-link",
        "status",
        "lend",
        "engine",
        "history",
        "name",
        "new-room",
        "join-link",
        "download",
        "remark",
        "pause-hidden",
        "pledge",
        "gone",
        "error",
        "room-error",
        "copy-link",
        "eta",
        "quality-quick",
        "quality-high",
        "kind",
        "jobs",
        "job",
        "job-cancel",
        "job-again",
        "job-dismiss",
        "queue-line",
    ];
    for hook in hooks {
        let found = tags().into_iter().filter(|(_, tag)| value(tag, "data-testid") == Some(hook)).count();
        assert_eq!(found, 1, "{hook}");
    }
    let ids = ids();
    for (index, id) in ids.iter().enumerate() {
        assert!(!ids[..index].contains(id), "the id {id} is there twice");
    }
}

#[test]
fn every_field_has_a_label_and_every_button_words() {
    for (name, tag) in tags() {
        if !["input", "textarea", "select"].contains(&name) {
            continue;
        }
        let labelled = value(tag, "id").is_some_and(|id| HTML.contains(&format!("<label for=\"{id}\">")));
        let before = HTML.split(tag).next().unwrap();
        let inside = before.rfind("<label").is_some_and(|at| !before[at..].contains("</label>"));
        assert!(labelled || inside, "{tag}");
    }
    for piece in HTML.split("<button").skip(1) {
        let words = piece.split_once('>').unwrap().1.split("</button>").next().unwrap();
        assert!(words.chars().any(char::is_alphanumeric) || piece.contains("data-part=\"remove\""), "{piece}");
    }
    for reference in ["aria-labelledby", "aria-describedby"] {
        let named: Vec<_> = tags().into_iter().filter_map(|(_, tag)| value(tag, reference)).collect();
        assert!(!named.is_empty() && named.iter().all(|id| ids().contains(id)), "{named:?}");
    }
}

#[test]
fn the_strictest_policy_lets_the_page_work() {
    let scripts: Vec<_> = tags().into_iter().filter(|(name, _)| *name == "script").collect();
    assert_eq!(scripts, [("script", "script type=\"module\" src=\"boot.js\"")]);
    for (name, tag) in tags() {
        assert!(name != "style" && value(tag, "style").is_none(), "{tag}");
        let handler = |piece: &str| piece.starts_with("on") && piece.contains("=\"");
        assert!(!tag.split_whitespace().any(handler), "{tag} has a handler in its markup");
        for address in [value(tag, "src"), value(tag, "href")].into_iter().flatten() {
            assert!(!address.contains(':') && !address.starts_with('/'), "{address} is not relative");
        }
    }
    for source in VIEW.iter().chain(&SCRIPTS) {
        for sink in ["inner_html", "innerHTML", "outer_html", "outerHTML", "insertAdjacent", "document.write", "eval("]
        {
            assert!(!source.contains(sink), "{sink}");
        }
    }
}

#[test]
fn every_place_that_the_view_names_is_there() {
    let methods = [
        "text",
        "attribute",
        "shown",
        "disabled",
        "checked",
        "is_checked",
        "value",
        "value_unless_edited",
        "read",
        "property",
        "focus",
        "select",
        "at",
        "items",
    ];
    let mut seen = 0;
    for source in VIEW {
        for method in methods {
            for piece in source.split(&format!(".{method}(\"")).skip(1) {
                let id = piece.split('"').next().unwrap();
                assert!(ids().contains(&id), "{id}");
                seen += 1;
            }
        }
        for piece in source.split("click(\"").skip(1) {
            assert!(ids().contains(&piece.split('"').next().unwrap()), "{piece}");
        }
    }
    assert!(seen > 60, "the view's words changed and only {seen} places were found");
}
