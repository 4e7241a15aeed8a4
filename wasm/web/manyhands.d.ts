// Types of manyhands.js: rooms of browsers and machines that paint one picture together.

/** Where a session begins. */
export class Manyhands {
  private constructor();

  /**
   * Joins the room of a link, or paints alone without one.
   *
   * Resolves as soon as it is known how the session stands: see `room.status`. A relay out of reach is no error: the room tries
   * again by itself, and `paint` works alone meanwhile.
   *
   * @throws Error, with a sentence, if the link or the options cannot be understood.
   */
  static join(link?: string | null, options?: JoinOptions): Promise<Room>;

  /**
   * The link of a new room at a relay; the relay that serves this script if none is named. Whoever has the link is a member.
   *
   * @throws Error if the address is not one of the web.
   */
  static newRoom(relay?: string | URL): Promise<string>;
}

export interface JoinOptions {
  /** The name shown to the room; one is made up if empty. At most 64 bytes are shown. */
  name?: string;
  /** Lend this device to the room from the start. */
  lend?: boolean;
  /** Which processor computes; `auto` takes the GPU if there is a real one. */
  engine?: "auto" | "cpu" | "gpu";
  /** Most memory, in MiB, that the engine may take. */
  memoryMib?: number | null;
  /** STUN and TURN servers; none are asked unless given. */
  iceServers?: { urls: string | string[]; username?: string; credential?: string }[];
  /** Reach members only through the relay. */
  relayedOnly?: boolean;
  /** Folder of page, engine and models; the folder of this script if not given. */
  base?: string | URL;
  /** Name of the model's folder below `base`/models. */
  model?: string;
  /** Gives joining up. */
  signal?: AbortSignal;
}

export interface RoomEvents {
  /** `detail.peers`: everyone, this session first; at most four times a second. */
  peers: CustomEvent<{ peers: Peer[] }>;
  status: CustomEvent<Status>;
  engine: CustomEvent<Engine>;
  /** Something a person should read once. */
  remark: CustomEvent<{ text: string }>;
}

/** A session in a room, or alone. Names, devices and reasons come from others: show them as text, never as markup. */
export class Room extends EventTarget {
  private constructor();

  /** The link, with the room's secret; null alone. */
  readonly link: string | null;
  /** The room's public id; null alone. */
  readonly id: string | null;
  /** This session's peer id. */
  readonly me: string;
  /** Everyone in the room, this session first. */
  readonly peers: Peer[];
  readonly status: Status;
  readonly engine: Engine;

  /**
   * Paints a picture with the room, or alone. A picture that is still being painted is given up.
   *
   * `await room.paint(recipe)` gives the picture; `for await (const news of room.paint(recipe))` tells how it grows.
   * A recipe that cannot be painted, and a job that fails, reject with an Error whose message is a sentence; a picture that
   * is given up rejects with the signal's reason, or with an AbortError.
   */
  paint(recipe: Recipe, options?: { signal?: AbortSignal }): Painting;

  /** Begins or ends lending this device to the room. Ending it unloads the engine. */
  lend(lend?: boolean): void;
  /** Stops computing for others without unloading the engine, or goes on. */
  pause(paused?: boolean): void;
  /** Shows another name to the room. */
  rename(name: string): void;
  /** Takes at most so many MiB for the engine, from its next start on. */
  pledge(memoryMib: number): void;
  /**
   * Measures the path to a member: how long messages take there and back, or how fast bodies go. For people who compare
   * paths: it competes with everything else on that path. A measurement carries at most 64 MiB each way and takes at most
   * 30 seconds, and a member answers 64 of them.
   *
   * @throws Error, with a sentence, if the peer is no member, does not answer, or the measurement is over its limit.
   */
  probe(peer: string, what?: Probe): Promise<Measured>;
  /** Leaves the room and frees everything. */
  leave(): void;

  addEventListener<K extends keyof RoomEvents>(
    type: K,
    listener: (this: Room, event: RoomEvents[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof RoomEvents>(
    type: K,
    listener: (this: Room, event: RoomEvents[K]) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | EventListenerOptions,
  ): void;
}

/** A picture that is being painted: a promise of it, and the news on the way there. */
export class Painting implements PromiseLike<Picture>, AsyncIterable<PaintingNews> {
  private constructor();

  /** The picture. */
  readonly picture: Promise<Picture>;
  /** Whether it is painted, failed or given up. */
  readonly done: boolean;

  /** Gives it up. */
  abort(reason?: unknown): void;
  then<A = Picture, B = never>(
    fulfilled?: ((picture: Picture) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B>;
  catch<B = never>(rejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<Picture | B>;
  finally(settled?: (() => void) | null): Promise<Picture>;
  /** At most 64 news wait for whoever iterates; the oldest are forgotten. */
  [Symbol.asyncIterator](): AsyncGenerator<PaintingNews, void, undefined>;
}

export interface Recipe {
  prompt: string;
  /** What to keep away from. */
  negative?: string;
  /** Pixels, a multiple of the model's cell (8). */
  width?: number;
  /** Pixels, a multiple of the model's cell (8). */
  height?: number;
  /** Denoising steps, 1 to 200. */
  steps?: number;
  /** How strongly to follow the prompt, 0 to 50; 1 or less paints without `negative`, in half the time. */
  guidance?: number;
  /** From 0 to 2^64 - 1; random if not given. The same seed gives the same picture, whoever helps. */
  seed?: number | bigint | string | null;
}

/** A recipe as it was painted; its seed is a decimal string. */
export type PaintedRecipe = Required<Omit<Recipe, "seed">> & { seed: string };

export interface Picture {
  /** A PNG with its recipe inside. */
  png: Blob;
  /** SHA-256 of its RGB pixels, hexadecimal. */
  pixelsSha256: string;
  /** SHA-256 of the final latent, hexadecimal. */
  latentSha256: string;
  recipe: PaintedRecipe;
  /** Who did how much. */
  workers: { peer: string; name: string; path: string; units: number; computeMs: number }[];
  /** Units granted again after a worker left, stalled, refused or delivered rubbish. */
  retries: number;
  /** From the wish to the picture. */
  tookMs: number;
}

export type PaintingNews =
  | { type: "planned"; sentence: string; explanation: string; recipe: PaintedRecipe; units: number }
  | {
      type: "progress";
      /** From 0 to 1. */
      fraction: number;
      /** Seconds still to go, once they can be told. */
      etaS: number | null;
      /** Units accepted so far. */
      units: number;
      /** The step being computed, from 1, while denoising. */
      step: number | null;
      /** What is being done, in words. */
      doing: string;
    }
  /** A cheap look at the latent, one pixel per cell: `new ImageData(rgba, width, height)`. */
  | { type: "preview"; width: number; height: number; rgba: ImageData["data"] };

export interface Peer {
  id: string;
  name: string;
  /** Whether it is this session. */
  isMe: boolean;
  /** How it is reached: `direct (webrtc)`, `direct (webtransport)`, `relayed`, ...; `this device` for this session. */
  path: string;
  /** What it lends, in words; empty if nothing. */
  device: string;
  /** What it is doing, in words. */
  doing: string;
  /** Units it has delivered to this session. */
  unitsGiven: number;
  /** Units this session has delivered to it. */
  unitsTaken: number;
}

export interface Probe {
  /** `echo`: messages there and back, one after the other; `upload` and `download`: bodies one way. `echo` if not given. */
  kind?: "echo" | "upload" | "download";
  /** Bytes of a message or body; 16 KiB if not given. */
  bytes?: number;
  /** How many; 100 if not given. */
  count?: number;
}

export interface Measured {
  /** The path that was measured, as in `Peer.path`. */
  path: string;
  /** Bytes carried one way. */
  bytes: number;
  /** From the first byte to the last. */
  tookMs: number;
  /** The middle one of the echoes; null for the other kinds. */
  echoP50Ms: number | null;
}

export interface Status {
  state: "connecting" | "connected" | "lost" | "alone" | "left";
  /** What is missing, and what still works. */
  text: string;
}

export interface Engine {
  state: "off" | "loading" | "ready" | "paused" | "failed";
  text: string;
  /** Bytes done and bytes in all of what is being loaded. */
  progress: [number, number] | null;
}
