// The public client of the compatible API, unchanged, against a server of this tree. It is plain JavaScript: what the
// client's type declarations promise is checked here at run time, field by field.
//
// HALE_URL, HALE_TOKEN, HALE_IMAGE and HALE_REGISTRY say where, with what, which image (one that answers HTTP on port 80), and
// which registry has it to be pulled.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import Hypeman from '@onkernel/hypeman';

const { HALE_URL: baseURL, HALE_TOKEN: apiKey, HALE_IMAGE: image, HALE_REGISTRY: registry } = process.env;

// Requests are counted: what waiting will not change must not be repeated.
let requests = 0;
const fetchAndCount = (...args) => (requests++, fetch(...args));
const client = new Hypeman({ baseURL, apiKey, fetch: fetchAndCount });

const states = ['Created', 'Initializing', 'Running', 'Paused', 'Shutdown', 'Stopped', 'Standby', 'Unknown'];
const healths = ['disabled', 'starting', 'healthy', 'unhealthy', 'unknown'];

// shape checks types of fields: a name with ? may be missing, one with | null may be null.
function shape(value, fields, what) {
  assert.equal(typeof value, 'object', `${what} is ${JSON.stringify(value)}`);
  for (const [key, type] of Object.entries(fields)) {
    const name = key.replace('?', '');
    if (!(name in value)) {
      assert.ok(key.endsWith('?'), `${what} has no ${name}`);
      continue;
    }
    const v = value[name];
    if (Array.isArray(type)) {
      assert.ok(type.includes(v), `${what}.${name} is ${JSON.stringify(v)}`);
      continue;
    }
    if (type.endsWith('| null') && v === null) continue;
    switch (type.replace(' | null', '')) {
      case 'time': assert.ok(!Number.isNaN(Date.parse(v)), `${what}.${name} is ${JSON.stringify(v)}`); break;
      case 'array': assert.ok(Array.isArray(v), `${what}.${name} is ${JSON.stringify(v)}`); break;
      case 'map':
        assert.equal(Object.getPrototypeOf(v), Object.prototype, `${what}.${name}`);
        for (const x of Object.values(v)) assert.equal(typeof x, 'string', `${what}.${name}`);
        break;
      default: assert.equal(typeof v, type.replace(' | null', ''), `${what}.${name} is ${JSON.stringify(v)}`);
    }
  }
}

function isInstance(i) {
  shape(i, {
    id: 'string', created_at: 'time', expires_at: 'time | null', image: 'string', name: 'string', state: states,
    'current_phase?': 'string', 'current_phase_since?': 'time', 'env?': 'map', 'exit_code?': 'number | null', 'exit_message?': 'string',
    'has_snapshot?': 'boolean', 'health_check?': 'object', 'health_status?': 'object', 'network?': 'object',
    'hypervisor?': ['cloud-hypervisor', 'firecracker', 'qemu', 'qemu-microvm', 'vz'],
    'overlay_size?': 'string', 'platform?': 'string', 'size?': 'string', 'started_at?': 'time | null', 'state_error?': 'string | null',
    'stopped_at?': 'time | null', 'tags?': 'map', 'vcpus?': 'number', 'volumes?': 'array',
  }, 'instance');
  assert.match(i.id, /^[a-z][a-z0-9]{23}$/);
  if (i.health_status) {
    shape(i.health_status, {
      consecutive_failures: 'number', consecutive_successes: 'number', status: healths,
      'last_checked_at?': 'time | null', 'last_error?': 'string | null', 'last_failure_at?': 'time | null', 'last_success_at?': 'time | null',
    }, 'health_status');
  }
  if (i.network) shape(i.network, { 'enabled?': 'boolean', 'ip?': 'string | null', 'mac?': 'string | null', 'name?': 'string' }, 'network');
  return i;
}

function isImage(i) {
  shape(i, {
    created_at: 'time', digest: 'string', name: 'string', status: ['pending', 'pulling', 'converting', 'ready', 'failed'],
    'cmd?': 'array | null', 'entrypoint?': 'array | null', 'env?': 'map', 'error?': 'string | null', 'platform?': 'string',
    'queue_position?': 'number | null', 'size_bytes?': 'number | null', 'tags?': 'map', 'working_dir?': 'string | null',
  }, 'image');
  return i;
}

// refused expects an error of that status, told in one request, and returns its body.
async function refused(status, call, { once = true } = {}) {
  const before = requests;
  const err = await call().then(
    (v) => assert.fail(`expected ${status}, got ${JSON.stringify(v)}`),
    (e) => e,
  );
  assert.ok(err instanceof Hypeman.APIError, String(err));
  assert.equal(err.status, status, err.message);
  shape(err.error, { code: 'string', message: 'string' }, 'error');
  assert.match(err.error.code, /^[a-z][a-z0-9_]*$/);
  if (once) assert.equal(requests - before, 1, `${err.status} ${err.error.code} was repeated`);
  return err.error;
}

const fieldsOf = (error) => (error.details ?? []).map((d) => d.field);

test('health needs no token and refuses none', async () => {
  assert.equal((await client.health.check()).status, 'ok');
  const stranger = new Hypeman({ baseURL, apiKey: 'not-a-token', fetch: fetchAndCount });
  assert.equal((await stranger.health.check()).status, 'ok');
  assert.equal((await refused(401, () => stranger.instances.list())).code, 'unauthorized');
});

test('host', async () => {
  const r = await client.resources.get();
  for (const name of ['cpu', 'memory', 'disk', 'network']) {
    shape(r[name], { allocated: 'number', available: 'number', capacity: 'number', effective_limit: 'number', oversub_ratio: 'number', type: 'string' }, name);
  }
  assert.ok(Array.isArray(r.allocations));
  const c = await client.capabilities.get();
  shape(c.default_runtime, { available: 'boolean', name: 'string' }, 'default_runtime');
  shape(c.host, { arch: 'string', os: 'string' }, 'host');
  shape(c.images, { default_platform: 'string', platforms: 'array' }, 'images');
  shape(c.network, { guest_to_guest: 'boolean', model: ['nat'] }, 'network');
  shape(c.server, { api_version: 'string', version: 'string' }, 'server');
  assert.ok(Array.isArray(c.features));
  for (const r of c.runtimes) shape(r, { available: 'boolean', features: 'array', name: 'string' }, 'runtime');
});

test('images', async () => {
  const list = await client.images.list();
  assert.ok(list.map(isImage).some((i) => i.name === image && i.status === 'ready'), JSON.stringify(list));
  const one = isImage(await client.images.get(image));
  assert.match(one.digest, /^sha256:[0-9a-f]{64}$/);
  assert.deepEqual(await client.images.list({ tags: { no: 'such' } }), []);
  await refused(404, () => client.images.get('docker.io/library/absent:latest'));
});

// ready polls as a user of the client would.
async function ready(name) {
  for (;;) {
    const i = isImage(await client.images.get(name));
    if (i.status === 'pending') assert.equal(typeof i.queue_position, 'number');
    if (i.status === 'ready' || i.status === 'failed') return i;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('images are pulled, tagged and deleted', async () => {
  const name = `${registry}/app:v1`;
  const made = isImage(await client.images.create({ name, platform: 'linux/amd64', tags: { team: 'a b', env: 'x&y=z' }, credentials: {} }));
  assert.equal(made.name, name);
  assert.match(made.digest, /^sha256:[0-9a-f]{64}$/);
  const there = await ready(name);
  assert.equal(there.status, 'ready', there.error);
  assert.deepEqual([there.digest, there.platform, there.entrypoint], [made.digest, 'linux/amd64', ['serve', '80']]);
  assert.ok(there.size_bytes > 0);
  assert.deepEqual((await client.images.list({ tags: { team: 'a b', env: 'x&y=z' } })).map((i) => i.name), [name]);

  // By its digest it is the same, and a further name is too.
  const byDigest = `${registry}/app@${made.digest}`;
  isImage(await client.images.create({ name: byDigest }));
  assert.equal((await ready(byDigest)).digest, made.digest);
  const tagged = isImage(await client.images.tag(name, { target: 'docker.io/library/tagged:stable' }));
  assert.deepEqual([tagged.name, tagged.digest, tagged.status], ['docker.io/library/tagged:stable', made.digest, 'ready']);

  const inst = isInstance(await client.instances.create({ image: name, name: 'pulled' }));
  assert.equal((await refused(409, () => client.images.delete(name))).code, 'image_in_use');
  await client.instances.delete(inst.id, { graceful_shutdown: false });
  for (const n of [name, byDigest, tagged.name]) await client.images.delete(n);
  await refused(404, () => client.images.get(name));

  // A create pulls by itself.
  isInstance(await client.instances.create({ image: name, name: 'by-itself' }));
  await client.instances.delete('by-itself', { graceful_shutdown: false });
  await client.images.delete(name);
});

test('what a registry refuses is told, once', async () => {
  const code = async (status, body) => (await refused(status, () => client.images.create(body))).code;
  assert.equal(await code(404, { name: `${registry}/absent` }), 'image_not_found');
  assert.equal(await code(429, { name: `${registry}/limited/app` }), 'rate_limited');
  assert.equal(await code(403, { name: `${registry}/private/app:v1` }), 'registry_unauthorized');
  assert.equal(await code(403, { name: `${registry}/private/app:v1`, credentials: { username: 'me', password: 'wrong' } }), 'registry_unauthorized');
  assert.equal(await code(400, { name: `${registry}/app:v1`, platform: 'linux/arm64' }), 'invalid_platform');
  assert.equal(await code(400, { name: 'Not A Name' }), 'invalid_image_name');
  for (const credentials of [{ username: 'me', password: 'secret' }, { registry_token: 'token' }]) {
    const made = isImage(await client.images.create({ name: `${registry}/private/app:v1`, credentials }));
    assert.equal((await ready(made.name)).status, 'ready');
    await client.images.delete(made.name);
  }
  await refused(404, () => client.instances.create({ image: `${registry}/absent`, name: 'no' }));
  await refused(429, () => client.instances.create({ image: `${registry}/limited/app`, name: 'no' }));
});

test('the life of an instance', async () => {
  const made = isInstance(await client.instances.create({
    image, name: 'life', size: '512MB', overlay_size: '1GB', vcpus: 1, env: { GREETING: 'hello' }, tags: { team: 'a b', env: 'x&y=z' },
    health_check: { http: { port: 80, path: '/healthz' }, interval: '1s' },
  }));
  assert.equal(made.state, 'Initializing');
  assert.equal(made.expires_at, null);
  assert.deepEqual([made.size, made.overlay_size, made.vcpus, made.hypervisor], ['512MB', '1GB', 1, 'qemu']);
  assert.deepEqual(made.env, { GREETING: 'hello' });
  assert.equal(made.health_status.status, 'starting');

  const running = await client.instances.wait(made.id, { state: 'Running', timeout: '1m' });
  shape(running, { state: states, timed_out: 'boolean', 'state_error?': 'string | null' }, 'wait');
  assert.deepEqual([running.state, running.timed_out], ['Running', false]);
  const well = await client.instances.wait(made.id, { health: 'healthy', timeout: '1m' });
  assert.equal(well.health_status.status, 'healthy');

  const now = isInstance(await client.instances.get('life'));
  assert.equal(now.id, made.id);
  assert.equal(now.health_status.status, 'healthy');
  assert.equal(now.health_check.http.path, '/healthz');
  // A policy as answered is accepted back.
  isInstance(await client.instances.update(made.id, { health_check: now.health_check }));

  const lines = [];
  for await (const line of await client.instances.logs(made.id, { tail: 10 })) lines.push(line);
  assert.ok(lines.length > 0 && lines.every((l) => typeof l === 'string'), JSON.stringify(lines));

  shape(await client.instances.stats(made.id), {
    allocated_memory_bytes: 'number', allocated_vcpus: 'number', cpu_seconds: 'number', instance_id: 'string', instance_name: 'string',
    memory_rss_bytes: 'number', memory_vms_bytes: 'number', network_rx_bytes: 'number', network_tx_bytes: 'number',
    'memory_utilization_ratio?': 'number | null',
  }, 'stats');
  assert.equal((await client.instances.stat(made.id, { path: '/no/such/file' })).exists, false);

  assert.ok((await client.instances.list({ state: 'Running' })).some((i) => i.id === made.id));
  assert.deepEqual((await client.instances.list({ tags: { team: 'a b', env: 'x&y=z' } })).map((i) => i.id), [made.id]);
  assert.deepEqual(await client.instances.list({ tags: { team: 'a b', env: 'other' } }), []);

  const later = await client.instances.update(made.id, { ttl: '1h' });
  assert.ok(Date.parse(later.expires_at) > Date.now());
  assert.equal((await client.instances.update(made.id, { ttl: '0s' })).expires_at, null);
  assert.deepEqual((await client.instances.update(made.id, { env: { MORE: '1' } })).env, { GREETING: 'hello', MORE: '1' });
  await refused(400, () => client.instances.update(made.id, {}));
  assert.equal((await client.instances.update(made.id, { health_check: { type: 'none' } })).health_status.status, 'disabled');

  await refused(409, () => client.instances.start(made.id, {}));
  const stopped = isInstance(await client.instances.stop(made.id));
  assert.equal(stopped.state, 'Stopped');
  assert.equal(typeof stopped.exit_code, 'number');
  assert.equal((await client.instances.wait(made.id, { state: 'Running', timeout: '1m' })).timed_out, false);
  assert.equal(isInstance(await client.instances.start(made.id, {})).state, 'Initializing');
  assert.equal(await client.instances.delete(made.id), null); // 204
  assert.equal((await refused(404, () => client.instances.get(made.id))).code, 'not_found');
});

test('values that ask for nothing are accepted', async () => {
  const made = isInstance(await client.instances.create({
    image, name: 'nothing', auto_standby: { enabled: false }, restart_policy: { policy: 'never' }, credentials: {}, devices: [], disk_io_bps: '', gpu: {},
    hotplug_size: '', hypervisor: 'qemu', skip_guest_agent: false, skip_kernel_headers: true, snapshot_policy: {}, volumes: [], tags: {}, env: {},
    network: { enabled: true, bandwidth_download: '', egress: { enabled: false, enforcement: { mode: 'all' } } }, ttl: '0s', platform: 'linux/amd64',
    a_field_of_tomorrow: { x: 1 },
  }));
  assert.equal(made.health_status?.status ?? 'disabled', 'disabled');
  await client.instances.delete(made.id, { graceful_shutdown: false });
});

test('what cannot be is refused by its field, and leaves nothing', async () => {
  const before = (await client.instances.list()).length;
  const asked = {
    auto_standby: { enabled: true }, restart_policy: { policy: 'always' }, credentials: { KEY: { source: { env: 'X' }, inject: [] } }, devices: ['gpu0'],
    disk_io_bps: '1MB/s', gpu: { profile: 'L40S-1Q' }, hotplug_size: '1GB', hypervisor: 'firecracker', skip_guest_agent: true,
    volumes: [{ volume_id: 'v', mount_path: '/v' }], snapshot_policy: { compression: { enabled: true } },
  };
  for (const [field, value] of Object.entries(asked)) {
    const error = await refused(400, () => client.instances.create({ image, name: 'no', [field]: value }));
    assert.equal(error.code, 'unsupported', field);
    assert.ok(fieldsOf(error).some((f) => f === field || f.startsWith(field + '.')), `${field}: ${JSON.stringify(error)}`);
  }
  const egress = await refused(400, () => client.instances.create({ image, name: 'no', network: { egress: { enabled: true } } }));
  assert.ok(fieldsOf(egress)[0].startsWith('network.egress'));
  assert.equal((await refused(400, () => client.instances.create({ image, name: 'no', platform: 'linux/s390x' }))).code, 'invalid_platform');
  const check = await refused(400, () => client.instances.create({ image, name: 'no', health_check: { http: { port: 0 }, interval: '1ms' } }));
  assert.equal(check.code, 'invalid_health_check');
  assert.deepEqual(fieldsOf(check).sort(), ['health_check.http.port', 'health_check.interval']);
  assert.deepEqual(fieldsOf(await refused(400, () => client.instances.create({ image, name: 'Not A Name' }))), ['name']);
  await refused(404, () => client.instances.create({ image: `${registry}/absent:latest`, name: 'no' }));
  assert.equal((await client.instances.list()).length, before);
});

test('a name that is in use is told once', async () => {
  const made = await client.instances.create({ image, name: 'taken' });
  assert.equal((await refused(409, () => client.instances.create({ image, name: 'taken' }))).code, 'name_conflict');
  await client.instances.delete('taken');
});

test('what is not built says so, once', async () => {
  const made = await client.instances.create({ image, name: 'unbuilt' });
  const { instances } = client;
  const calls = [
    () => instances.standby(made.id), () => instances.restore(made.id), () => instances.fork(made.id, { name: 'f' }),
    () => instances.autoStandby.status(made.id), () => instances.autoStandby.hold(made.id),
    () => instances.volumes.attach('v', { id: made.id, mount_path: '/v' }), () => instances.volumes.detach('v', { id: made.id }),
    () => instances.snapshots.create(made.id, { kind: 'Standby' }), () => instances.snapshots.restore('s', { id: made.id }),
    () => instances.snapshotSchedule.get(made.id), () => instances.snapshotSchedule.delete(made.id),
    () => instances.snapshotSchedule.update(made.id, { interval: '1h', retention: { max_count: 1 } }),
    () => client.snapshots.list(), () => client.snapshots.get('s'), () => client.snapshots.delete('s'), () => client.snapshots.fork('s', { name: 'f' }),
    () => client.volumes.list(), () => client.volumes.get('v'), () => client.volumes.create({ name: 'v', size_gb: 1 }), () => client.volumes.delete('v'),
    () => client.devices.list(), () => client.devices.retrieve('d'), () => client.devices.listAvailable(), () => client.devices.delete('d'),
    () => client.ingresses.list(), () => client.ingresses.get('i'), () => client.ingresses.delete('i'),
    () => client.builds.list(), () => client.builds.get('b'), () => client.builds.cancel('b'),
    () => client.builders.list(), () => client.builders.get('b'), () => client.builders.prune('b'), () => client.pushes.list(), () => client.pushes.get('p'), () => client.resources.reclaimMemory({ reclaim_bytes: 1 }),
  ];
  for (const call of calls) {
    const error = await refused(501, call);
    assert.ok(['unimplemented', 'unsupported'].includes(error.code), `${call}: ${error.code}`);
  }
  await client.instances.delete(made.id, { graceful_shutdown: false });
});
