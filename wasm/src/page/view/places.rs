//! The places of index.html by id. Setting what is set already touches nothing, so that showing a state is cheap.

use wasm_bindgen::JsCast;
use web_sys::{
    Document, DocumentFragment, Element, HtmlButtonElement, HtmlElement, HtmlInputElement, HtmlSelectElement,
    HtmlTemplateElement, HtmlTextAreaElement,
};

/// The document. A place that is missing is passed over: a test reads index.html and this folder, and finds it.
pub struct Places {
    document: Document,
}

impl Places {
    pub fn new(document: Document) -> Self {
        Self { document }
    }

    pub fn document(&self) -> &Document {
        &self.document
    }

    pub fn at(&self, id: &str) -> Option<Element> {
        self.document.get_element_by_id(id)
    }

    pub fn as_kind<T: JsCast>(&self, id: &str) -> Option<T> {
        self.at(id)?.dyn_into().ok()
    }

    pub fn title(&self, text: &str) {
        if self.document.title() != text {
            self.document.set_title(text);
        }
    }

    pub fn text(&self, id: &str, text: &str) {
        if let Some(place) = self.at(id) {
            set_text(&place, text);
        }
    }

    pub fn attribute(&self, id: &str, name: &str, value: Option<&str>) {
        if let Some(place) = self.at(id) {
            set_attribute(&place, name, value);
        }
    }

    pub fn shown(&self, id: &str, shown: bool) {
        self.attribute(id, "hidden", (!shown).then_some(""));
    }

    pub fn disabled(&self, id: &str, disabled: bool) {
        if let Some(button) = self.as_kind::<HtmlButtonElement>(id) {
            button.set_disabled(disabled);
        }
    }

    pub fn checked(&self, id: &str, checked: bool) {
        if let Some(input) = self.as_kind::<HtmlInputElement>(id) {
            input.set_checked(checked);
        }
    }

    pub fn value(&self, id: &str, value: &str) {
        let Some(place) = self.at(id) else { return };
        if let Some(input) = place.dyn_ref::<HtmlInputElement>() {
            if input.value() != value {
                input.set_value(value);
            }
        } else if let Some(select) = place.dyn_ref::<HtmlSelectElement>() {
            if select.value() != value {
                select.set_value(value);
            }
        } else if let Some(area) = place.dyn_ref::<HtmlTextAreaElement>()
            && area.value() != value
        {
            area.set_value(value);
        }
    }

    /// Sets a field whose text is taken over only when it is left.
    pub fn value_unless_edited(&self, id: &str, value: &str) {
        let edited = self.document.active_element().is_some_and(|active| active.id() == id);
        if !edited {
            self.value(id, value);
        }
    }

    /// What stands in a field.
    pub fn read(&self, id: &str) -> String {
        let Some(place) = self.at(id) else { return String::new() };
        let input = place.dyn_ref::<HtmlInputElement>().map(HtmlInputElement::value);
        let area = || place.dyn_ref::<HtmlTextAreaElement>().map(HtmlTextAreaElement::value);
        let select = || place.dyn_ref::<HtmlSelectElement>().map(HtmlSelectElement::value);
        input.or_else(area).or_else(select).unwrap_or_default()
    }

    /// Whether a box or choice is ticked.
    pub fn is_checked(&self, id: &str) -> bool {
        self.as_kind::<HtmlInputElement>(id).is_some_and(|input| input.checked())
    }

    /// Sets a custom property for the style sheet.
    pub fn property(&self, id: &str, name: &str, value: &str) {
        let Some(place) = self.as_kind::<HtmlElement>(id) else { return };
        let style = place.style();
        if style.get_property_value(name).as_deref() != Ok(value) {
            // Fails only for malformed names, and those stand in this folder.
            let _ = style.set_property(name, value);
        }
    }

    pub fn focus(&self, id: &str) {
        if let Some(place) = self.as_kind::<HtmlElement>(id) {
            // A place that cannot take the cursor is shown all the same.
            let _ = place.focus();
        }
    }

    pub fn select(&self, id: &str) {
        if let Some(input) = self.as_kind::<HtmlInputElement>(id) {
            input.select();
        }
    }

    /// Gives the list as many items as asked for, made from the template, and returns them.
    pub fn items(&self, list: &str, template: &str, count: usize) -> Vec<Element> {
        let Some(place) = self.at(list) else { return Vec::new() };
        while place.child_element_count() as usize > count {
            let Some(last) = place.last_element_child() else { break };
            last.remove();
        }
        while (place.child_element_count() as usize) < count {
            let content: Option<DocumentFragment> =
                self.as_kind::<HtmlTemplateElement>(template).map(|found| found.content());
            let copy = content.and_then(|content| content.clone_node_with_deep(true).ok());
            let Some(copy) = copy else { break };
            if place.append_child(&copy).is_err() {
                break;
            }
        }
        let children = place.children();
        (0..children.length()).filter_map(|index| children.item(index)).collect()
    }
}

pub fn set_text(place: &Element, text: &str) {
    if place.text_content().as_deref() != Some(text) {
        place.set_text_content(Some(text));
    }
}

pub fn set_attribute(place: &Element, name: &str, value: Option<&str>) {
    let present = place.get_attribute(name);
    if present.as_deref() == value {
        return;
    }
    // Fails only for malformed names, and those stand in this folder.
    let _ = match value {
        Some(value) => place.set_attribute(name, value),
        None => place.remove_attribute(name),
    };
}

/// The part of an item that carries this name.
pub fn part(item: &Element, name: &str) -> Option<Element> {
    item.query_selector(&format!("[data-part={name}]")).ok().flatten()
}

pub fn set_part(item: &Element, name: &str, text: &str) {
    if let Some(place) = part(item, name) {
        set_text(&place, text);
    }
}
