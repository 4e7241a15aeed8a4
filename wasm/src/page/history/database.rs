//! The browser's database of recent pictures: their facts as JSON, their PNGs as blobs.

use js_sys::{Array, Promise, Reflect};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, DomException, IdbDatabase, IdbObjectStore, IdbOpenDbRequest, IdbRequest, IdbTransactionMode};

use super::PICTURES_MAX;
use crate::page::state::Picture;

const NAME: &str = "manyhands";
const STORE: &str = "pictures";
const VERSION: u32 = 1;

/// Longest facts read back: two prompts and an explanation, with room for many workers.
const FACTS_BYTES_MAX: usize = 256 * 1024;

/// Why a picture could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The browser's storage is full.
    Full,
    /// There is no database here, as in some private windows.
    Missing,
}

/// An open database.
#[derive(Clone, Debug)]
pub struct Database(IdbDatabase);

impl Database {
    /// Opens the database, and makes it on the first visit.
    pub async fn open() -> Result<Self, StoreError> {
        let window = web_sys::window().ok_or(StoreError::Missing)?;
        let factory = window.indexed_db().ok().flatten().ok_or(StoreError::Missing)?;
        let request = factory.open_with_u32(NAME, VERSION).map_err(told)?;
        let upgrade = Closure::once_into_js({
            let request = request.clone();
            move || create(&request)
        });
        request.set_onupgradeneeded(Some(upgrade.unchecked_ref()));
        let database = settled(&request).await?;
        let database: IdbDatabase = database.dyn_into().map_err(|_| StoreError::Missing)?;
        // A newer page in another tab may change the layout: this one lets go.
        let closing = database.clone();
        let close = Closure::<dyn Fn()>::new(move || closing.close()).into_js_value();
        database.set_onversionchange(Some(close.unchecked_ref()));
        Ok(Self(database))
    }

    /// Keeps a picture, in place of one with the same id.
    pub async fn put(&self, picture: &Picture, png: &Blob) -> Result<(), StoreError> {
        let facts = serde_json::to_string(picture).map_err(|_| StoreError::Missing)?;
        let row = js_sys::Object::new();
        for (key, value) in [("id", JsValue::from(&picture.id)), ("facts", facts.into()), ("png", png.into())] {
            Reflect::set(&row, &key.into(), &value).map_err(told)?;
        }
        let store = self.store(IdbTransactionMode::Readwrite)?;
        settled(&store.put(&row).map_err(told)?).await?;
        committed(&store).await
    }

    /// Forgets pictures.
    pub async fn remove(&self, ids: &[String]) -> Result<(), StoreError> {
        let store = self.store(IdbTransactionMode::Readwrite)?;
        for id in ids {
            store.delete(&JsValue::from(id)).map_err(told)?;
        }
        committed(&store).await
    }

    /// All pictures kept, in no order. Rows that cannot be understood are left out.
    pub async fn all(&self) -> Result<Vec<(Picture, Blob)>, StoreError> {
        let store = self.store(IdbTransactionMode::Readonly)?;
        // Other tabs may have kept pictures too: a few more than the limit are read, and dropped by it.
        let most = 2 * PICTURES_MAX as u32;
        let rows = settled(&store.get_all_with_key_and_limit(&JsValue::UNDEFINED, most).map_err(told)?).await?;
        Ok(Array::from(&rows).iter().filter_map(|row| read(&row)).collect())
    }

    fn store(&self, mode: IdbTransactionMode) -> Result<IdbObjectStore, StoreError> {
        let transaction = self.0.transaction_with_str_and_mode(STORE, mode).map_err(told)?;
        transaction.object_store(STORE).map_err(told)
    }
}

fn create(request: &IdbOpenDbRequest) {
    let Ok(database) = request.result().and_then(JsCast::dyn_into::<IdbDatabase>) else { return };
    let options = web_sys::IdbObjectStoreParameters::new();
    options.set_key_path(&"id".into());
    // If this fails, so does every later transaction, and the pictures stay in memory.
    let _ = database.create_object_store_with_optional_parameters(STORE, &options);
}

fn read(row: &JsValue) -> Option<(Picture, Blob)> {
    let field = |key: &str| Reflect::get(row, &key.into()).ok();
    let facts = field("facts")?.as_string().filter(|facts| facts.len() <= FACTS_BYTES_MAX)?;
    let mut picture: Picture = serde_json::from_str(&facts).ok()?;
    let png: Blob = field("png")?.dyn_into().ok()?;
    picture.bytes = png.size() as u64;
    Some((picture, png))
}

/// The result of a request, once it has one.
async fn settled(request: &IdbRequest) -> Result<JsValue, StoreError> {
    let promise = Promise::new(&mut |resolve, reject| {
        let finished = request.clone();
        let resolve = Closure::once_into_js(move || {
            let _ = resolve.call1(&JsValue::NULL, &finished.result().unwrap_or(JsValue::UNDEFINED));
        });
        request.set_onsuccess(Some(resolve.unchecked_ref()));
        let broken = request.clone();
        let reject = Closure::once_into_js(move || {
            let error = broken.error().ok().flatten().map_or(JsValue::UNDEFINED, JsValue::from);
            let _ = reject.call1(&JsValue::NULL, &error);
        });
        request.set_onerror(Some(reject.unchecked_ref()));
    });
    JsFuture::from(promise).await.map_err(told)
}

/// Waits until what was written is kept: a full disk shows only here.
async fn committed(store: &IdbObjectStore) -> Result<(), StoreError> {
    let transaction = store.transaction();
    let promise = Promise::new(&mut |resolve, reject| {
        transaction.set_oncomplete(Some(&resolve));
        let broken = transaction.clone();
        let reject = Closure::once_into_js(move || {
            let error = broken.error().map_or(JsValue::UNDEFINED, JsValue::from);
            let _ = reject.call1(&JsValue::NULL, &error);
        });
        transaction.set_onabort(Some(reject.unchecked_ref()));
    });
    JsFuture::from(promise).await.map(|_| ()).map_err(told)
}

fn told(error: JsValue) -> StoreError {
    let name = error.dyn_ref::<DomException>().map(DomException::name);
    if name.as_deref() == Some("QuotaExceededError") { StoreError::Full } else { StoreError::Missing }
}
