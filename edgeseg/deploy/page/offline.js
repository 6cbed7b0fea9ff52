// Service worker: what the page has stored is there without a network, and the page may use several threads.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && event.request.url.startsWith("http")) event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(`edgeseg ${self.registration.scope}`);
  const stored = await cache.match(request, { ignoreSearch: request.mode === "navigate", ignoreVary: true });
  // Files of other servers have their version in their address, and do not change.
  if (stored && !request.url.startsWith(self.location.origin)) return stored;
  let response;
  try {
    response = await fetch(request);
    if (stored && response.ok) await cache.put(request, response.clone());
  } catch (error) {
    if (!stored) throw error;
    response = stored;
  }
  return request.mode === "navigate" ? isolated(response) : response;
}

/** The page with the headers that browsers require for threads of WebAssembly. */
function isolated(response) {
  if (response.type === "opaqueredirect") return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
