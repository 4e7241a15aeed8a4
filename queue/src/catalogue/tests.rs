//! What a catalogue may say, and that its errors say where and what to do.

use super::*;

const ONE: &str = r#"
[[type]]
id = "one"
label = "One"
badge = "fast"
tier = "fast"
queue = "q"
model = "m"
task = "txt2img"
width = 128
height = 64
steps = 8
guidance = 3.0
expected_s = 2
bucket = "pictures"
engine = "native"
limits = { prompt_bytes = 100, steps = 20, pixels = 16384, images = 2 }
fallback = "never"
"#;

/// `text` with each first piece replaced by its second.
fn changed(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

fn error(changes: &[(&str, &str)]) -> String {
    Catalogue::parse(&changed(ONE, changes)).unwrap_err().to_string()
}

fn ask(id: &str) -> Ask {
    Ask::new(id).unwrap()
}

/// Types that fall back on each other by name.
fn with_fallbacks(fallbacks: &[(&str, &str)]) -> Result<Catalogue, CatalogueError> {
    let one =
        |(id, to): &(&str, &str)| changed(ONE, &[("\"one\"", &format!("{id:?}")), ("\"never\"", &format!("{to:?}"))]);
    Catalogue::parse(&fallbacks.iter().map(one).collect::<String>())
}

#[test]
fn the_shipped_types_are_those_of_the_specification() {
    let shipped = Catalogue::shipped();
    let lines: Vec<String> = shipped
        .types()
        .map(|one| {
            let JobType { id, queue, task, width, height, steps, guidance, .. } = one;
            let fallback = match &one.fallback {
                Fallback::Never => "never",
                Fallback::To(to) => to.as_str(),
            };
            let (strength, seconds) = (one.strength.unwrap_or_default(), one.seconds.unwrap_or_default());
            let expected = one.expected.as_secs();
            format!(
                "{id} {queue} {task:?} {width}x{height} {steps} {guidance} {strength} {seconds} {expected} {fallback}"
            )
        })
        .collect();
    let expected = [
        "sdxl_image_fast sdxl Txt2img 1024x1024 15 6 0 0 5 image_fast",
        "sdxl_image_high sdxl Txt2img 1024x1024 25 7.5 0 0 8 image_high",
        "sdxl_image_premium sdxl Txt2img 1280x1280 40 8.5 0 0 12 image_high",
        "sdxl_img2img sdxl Img2img 1024x1024 20 7 0.75 0 6 never",
        "image_fast wan Txt2img 832x480 12 6 0 0 73 never",
        "image_high wan Txt2img 832x480 25 7.5 0 0 90 never",
        "video_fast wan Video 480x832 15 6.5 0 5 180 never",
        "video_high wan Video 832x480 25 8 0 6 280 never",
    ];
    assert_eq!(lines[..expected.len()], expected);
    assert!(lines[expected.len()..].iter().all(|line| line.starts_with("demo_") && line.contains(" demo Txt2img ")));
    for one in shipped.types() {
        assert_eq!(one.needs_init_image, one.task == Task::Img2img, "{}", one.id);
        assert_eq!(one.engine == Engine::OverflowOnly, one.task == Task::Video, "{}", one.id);
        assert!(one.overflow_after > one.expected);
    }
}

#[test]
fn an_operators_own_catalogue_replaces_the_shipped_one() {
    let own = Catalogue::parse(ONE).unwrap();
    assert_eq!(own.types().count(), 1);
    let one = own.find(&ask("one")).unwrap();
    assert_eq!(one.overflow_after, OVERFLOW_AFTER_MIN, "three times 2 s would be too soon");
    assert_eq!(own.find(&ask("sdxl_image_fast")), None);
    let slower = changed(ONE, &[("expected_s = 2", "expected_s = 60.5\noverflow_after_s = 90")]);
    let slower = Catalogue::parse(&slower).unwrap();
    let one = slower.find(&ask("one")).unwrap();
    assert_eq!((one.expected, one.overflow_after), (Duration::from_millis(60_500), Duration::from_secs(90)));
}

#[test]
fn an_error_names_line_type_and_field() {
    assert_eq!(
        error(&[("width = 128", "width = 100")]),
        "line 10, type one, field width: must be a multiple of 8, 64 to 4096"
    );
    let two = changed(ONE, &[]) + &changed(ONE, &[("\"one\"", "\"two\""), ("steps = 8", "steps = 21")]);
    let error = Catalogue::parse(&two).unwrap_err();
    assert_eq!(error.to_string(), "line 30, type two, field steps: steps is 21 and must be 1 to 20");
    assert_eq!((error.ask, error.field), (Some(ask("two")), Some("steps")));
}

#[test]
fn what_is_no_catalogue_says_where_it_stops_being_one() {
    for (changes, line, word) in [
        (("width = 128", "widht = 128"), "line 10: ", "unknown field `widht`"),
        (("width = 128", "width = -1"), "line 10: ", "-1"),
        (("width = 128", "width = "), "line 10: ", ""),
        (("\"one\"", "\"o/ne\""), "line 3: ", "a job type"),
        (("tier = \"fast\"", "tier = \"best\""), "line 6: ", "best"),
        (("[[type]]", "[[kind]]"), "line 2: ", "kind"),
        (("label = \"One\"\n", ""), "line 2: ", "label"),
    ] {
        let error = error(&[changes]);
        assert!(error.starts_with(line) && error.contains(word), "{changes:?}: {error}");
    }
    assert!(Catalogue::parse("").is_err());
    assert!(Catalogue::parse("type = []").unwrap_err().problem.contains("1 to"));
    let many: String =
        (0..=crate::limits::TYPES_MAX).map(|id| changed(ONE, &[("\"one\"", &format!("\"t{id}\""))])).collect();
    assert!(Catalogue::parse(&many).unwrap_err().problem.contains("129"));
    let long = "#".repeat(crate::limits::CATALOGUE_BYTES_MAX + 1);
    assert!(Catalogue::parse(&long).unwrap_err().problem.contains("larger"));
}

#[test]
fn every_number_has_a_limit() {
    for (change, field) in [
        (("width = 128", "width = 0"), "width"),
        (("height = 64", "height = 0"), "height"),
        (("height = 64", "height = 4104"), "height"),
        (("steps = 8", "steps = 0"), "steps"),
        (("steps = 20", "steps = 201"), "limits"),
        (("pixels = 16384", "pixels = 8191"), "limits"),
        (("pixels = 16384", "pixels = 4194305"), "limits"),
        (("images = 2", "images = 17"), "limits"),
        (("images = 2", "images = 0"), "limits"),
        (("prompt_bytes = 100", "prompt_bytes = 4097"), "limits"),
        (("guidance = 3.0", "guidance = 50.1"), "guidance"),
        (("guidance = 3.0", "guidance = nan"), "guidance"),
        (("guidance = 3.0", "guidance = -1.0"), "guidance"),
        (("expected_s = 2", "expected_s = 0"), "expected_s"),
        (("expected_s = 2", "expected_s = inf"), "expected_s"),
        (("expected_s = 2", "expected_s = 86401"), "expected_s"),
        (("expected_s = 2", "expected_s = 2\noverflow_after_s = nan"), "overflow_after_s"),
        (("\"One\"", "\"\""), "label"),
        (("\"One\"", "\"a\\nb\""), "label"),
        (("badge = \"fast\"", "badge = \"a badge that is many words\""), "badge"),
    ] {
        let error = Catalogue::parse(&changed(ONE, &[change])).unwrap_err();
        assert_eq!(error.field, Some(field), "{change:?}: {error}");
        let line = changed(ONE, &[change]).lines().position(|line| line.trim().starts_with(field)).unwrap() + 1;
        assert_eq!(error.line, line, "{change:?}: {error}");
    }
    assert!(Catalogue::parse(&changed(ONE, &[("images = 2", "images = 16")])).is_ok());
}

#[test]
fn the_largest_sides_do_not_overflow() {
    let huge = [("width = 128", "width = 4096"), ("height = 64", "height = 4096"), ("16384", "4194304")];
    assert!(error(&huge).contains("16777216 pixels"));
}

#[test]
fn fields_of_other_tasks_are_refused_and_missing_ones_named() {
    let needs = "expected_s = 2\nneeds_init_image = true";
    let img2img = [("txt2img", "img2img"), ("expected_s = 2", needs)];
    for (changes, field) in [
        (vec![("expected_s = 2", needs)], "needs_init_image"),
        (vec![("txt2img", "img2img")], "needs_init_image"),
        (vec![("txt2img", "upscale")], "needs_init_image"),
        (img2img.to_vec(), "strength"),
        (vec![("steps = 8", "steps = 8\nstrength = 0.5")], "strength"),
        (
            vec![("txt2img", "img2img"), ("expected_s = 2", "expected_s = 2\nneeds_init_image = true\nstrength = 0.0")],
            "strength",
        ),
        (
            vec![("txt2img", "img2img"), ("expected_s = 2", "expected_s = 2\nneeds_init_image = true\nstrength = 1.1")],
            "strength",
        ),
        (vec![("txt2img", "video")], "seconds"),
        (vec![("steps = 8", "steps = 8\nseconds = 5.0")], "seconds"),
        (vec![("txt2img", "video"), ("steps = 8", "steps = 8\nseconds = 61.0")], "seconds"),
    ] {
        let error = Catalogue::parse(&changed(ONE, &changes)).unwrap_err();
        assert_eq!(error.field, Some(field), "{changes:?}: {error}");
    }
    let upscale = [("txt2img", "upscale"), ("expected_s = 2", needs)];
    assert!(Catalogue::parse(&changed(ONE, &upscale)).is_ok(), "without strength too");
    let clip = [("txt2img", "video"), ("expected_s = 2", needs), ("steps = 8", "steps = 8\nseconds = 5")];
    assert!(Catalogue::parse(&changed(ONE, &clip)).is_ok(), "a clip may begin with a picture");
}

#[test]
fn fallbacks_exist_end_and_do_the_same() {
    assert!(with_fallbacks(&[("a", "b"), ("b", "c"), ("c", "never")]).is_ok());
    let unknown = with_fallbacks(&[("a", "b")]).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "line 18, type a, field fallback: there is no type b; name one of this catalogue, or \"never\""
    );
    for circle in [vec![("a", "a")], vec![("a", "b"), ("b", "a")], vec![("x", "a"), ("a", "b"), ("b", "c"), ("c", "a")]]
    {
        let error = with_fallbacks(&circle).unwrap_err();
        assert!(error.problem.contains("break the circle"), "{circle:?}: {error}");
        assert_ne!(error.ask, Some(ask("x")), "a type that leads into a circle is not at fault");
    }
    assert_eq!(with_fallbacks(&[("a", "never"), ("a", "never")]).unwrap_err().field, Some("id"));

    let first = "expected_s = 2\nneeds_init_image = true\nstrength = 0.5";
    let from_picture = [("txt2img", "img2img"), ("expected_s = 2", first), ("\"never\"", "\"two\"")];
    let two = changed(ONE, &[("\"one\"", "\"two\"")]);
    let error = Catalogue::parse(&(changed(ONE, &from_picture) + &two)).unwrap_err();
    assert!(error.problem.contains("init image"), "{error}");
    let clip = changed(&two, &[("txt2img", "video"), ("steps = 8", "steps = 8\nseconds = 5.0")]);
    let to_two = changed(ONE, &[("\"never\"", "\"two\"")]);
    assert!(Catalogue::parse(&(to_two.clone() + &clip)).unwrap_err().problem.contains("another task"));
    let shorter = changed(&two, &[("prompt_bytes = 100", "prompt_bytes = 99")]);
    assert!(Catalogue::parse(&(to_two + &shorter)).unwrap_err().problem.contains("shorter prompts"));
}

#[test]
fn expected_times_are_in_proportion_to_steps_and_pixels() {
    let own = Catalogue::parse(ONE).unwrap();
    let one = own.find(&ask("one")).unwrap();
    assert_eq!(one.expected_of(8, 128 * 64), Duration::from_secs(2));
    assert_eq!(one.expected_of(16, 128 * 128), Duration::from_secs(8));
}
