-- Merges tallies into rings and their tails (services/feature_service/domain/rings.py says how a ring's bytes lie,
-- domain/tails.py how a tail's, shared/features/layouts.py how a cell's, domain/tallies.py how a tally's).
-- KEYS: rings, then their tails. ARGV[1]: layout; ARGV[2]: slots of each ring; ARGV[3]: bytes of a cell; ARGV[4]:
-- entries of a cell; ARGV[5]: '1' where a base cell follows the slots; ARGV[6]: milliseconds until a ring that is left
-- alone expires, 0: never; ARGV[7]: the same of a tail; ARGV[8]: events of a stretch of a tail; ARGV[9]: width of
-- a tile in seconds; ARGV[i + 9]: the packed tallies for KEYS[i].
-- Returns the number of events that came too late: their slot holds a newer tile.
local layout = ARGV[1]
local slots = tonumber(ARGV[2])
local size = tonumber(ARGV[3])
local entries = tonumber(ARGV[4])
local has_base = ARGV[5] == '1'
local ttl = tonumber(ARGV[6])
local tail_ttl = tonumber(ARGV[7])
local stretch_events = tonumber(ARGV[8])
local hop = tonumber(ARGV[9])
local GIVEN = 9
local rings = #KEYS / 2
local marks = (has_base and slots + 1 or slots) * size
local NONE = 2
local HEAD = 24
local EVENT = 16
local MARKS = 128 -- bytes, MARKS_BYTES of the layouts: marks are made 16 at a time

-- A cell as a table: tile, count, last_time and what its layout has. nil: empty.
local unpack_cell, pack_cell, merge_cells, read_tally

-- How two cells merge, of the layouts that are a fixed list of fields.
local merge_fields = {
  sums = function(a, b)
    local later = (a[3] > b[3] or (a[3] == b[3] and a[4] > b[4])) and a or b
    local earlier = (a[5] < b[5] or (a[5] == b[5] and a[6] < b[6])) and a or b
    return {math.max(a[1], b[1]), a[2] + b[2], later[3], later[4], earlier[5], earlier[6], a[7] + b[7],
      math.min(a[8], b[8]), math.max(a[9], b[9])}
  end,
  spread = function(a, b)
    if b[4] < a[4] or (b[4] == a[4] and b[5] < a[5]) then a, b = b, a end
    local count = a[2] + b[2]
    local step = b[5] - a[5]
    local apart = step + (b[6] / b[2] - a[6] / a[2])
    return {math.max(a[1], b[1]), count, math.max(a[3], b[3]), a[4], a[5], a[6] + b[6] + b[2] * step,
      a[7] + b[7] + apart * apart * a[2] * b[2] / count}
  end,
}

if merge_fields[layout] then
  local fields = '<' .. string.rep('d', size / 8)
  read_tally = function(packed, at)
    local cell = {struct.unpack(fields, packed, at)}
    return cell, table.remove(cell)
  end
  unpack_cell = function(bytes)
    local cell = read_tally(bytes, 1)
    return cell[2] > 0 and cell or nil
  end
  pack_cell = function(cell)
    return struct.pack(fields, unpack(cell))
  end
  merge_cells = merge_fields[layout]
elseif layout == 'last_n' then
  read_tally = function(packed, at)
    local cell = {}
    local held
    cell[1], cell[2], cell[3], held, at = struct.unpack('<dddd', packed, at)
    cell.pairs = {}
    for i = 1, held do
      local time, value
      time, value, at = struct.unpack('<dd', packed, at)
      cell.pairs[i] = {time, value}
    end
    return cell, at
  end
  unpack_cell = function(bytes)
    local cell = {struct.unpack('<ddd', bytes)}
    if cell[2] == 0 then return nil end
    cell.pairs = {}
    for i = 1, math.min(cell[2], entries) do
      local time, value = struct.unpack('<dd', bytes, HEAD + 1 + (i - 1) * 16)
      cell.pairs[i] = {time, value}
    end
    return cell
  end
  pack_cell = function(cell)
    local parts = {struct.pack('<ddd', cell[1], cell[2], cell[3])}
    for i = 1, entries do
      local pair = cell.pairs[i] or {0, 0}
      parts[i + 1] = struct.pack('<dd', pair[1], pair[2])
    end
    return table.concat(parts)
  end
  merge_cells = function(a, b)
    local merged, i, j = {}, 1, 1
    while #merged < entries and (a.pairs[i] or b.pairs[j]) do
      local one, other = a.pairs[i], b.pairs[j]
      if not other or (one and (one[1] > other[1] or (one[1] == other[1] and one[2] >= other[2]))) then
        merged[#merged + 1] = one
        i = i + 1
      else
        merged[#merged + 1] = other
        j = j + 1
      end
    end
    return {math.max(a[1], b[1]), a[2] + b[2], math.max(a[3], b[3]), pairs = merged}
  end
elseif layout == 'distinct' then
  read_tally = function(packed, at)
    local cell = {}
    local held
    cell[1], cell[2], cell[3], held, at = struct.unpack('<dddd', packed, at)
    cell.hashes = {}
    for i = 1, held do
      cell.hashes[i], at = struct.unpack('<d', packed, at)
    end
    return cell, at
  end
  unpack_cell = function(bytes)
    local cell = {struct.unpack('<ddd', bytes)}
    if cell[2] == 0 then return nil end
    cell.hashes = {}
    for i = 1, entries do
      local hash = struct.unpack('<d', bytes, HEAD + 1 + (i - 1) * 8)
      if hash >= NONE then break end
      cell.hashes[i] = hash
    end
    return cell
  end
  pack_cell = function(cell)
    local parts = {struct.pack('<ddd', cell[1], cell[2], cell[3])}
    for i = 1, entries do
      parts[i + 1] = struct.pack('<d', cell.hashes[i] or NONE)
    end
    return table.concat(parts)
  end
  merge_cells = function(a, b)
    local merged, i, j = {}, 1, 1
    while #merged < entries and (a.hashes[i] or b.hashes[j]) do
      local one, other = a.hashes[i], b.hashes[j]
      if one == other then
        j = j + 1
      elseif not other or (one and one < other) then
        merged[#merged + 1] = one
        i = i + 1
      else
        merged[#merged + 1] = other
        j = j + 1
      end
    end
    return {math.max(a[1], b[1]), a[2] + b[2], math.max(a[3], b[3]), hashes = merged}
  end
else -- bins: counts by bin, only those that are not zero
  read_tally = function(packed, at)
    local cell = {}
    local held
    cell[1], cell[2], cell[3], held, at = struct.unpack('<dddd', packed, at)
    cell.bins = {}
    for _ = 1, held do
      local bin, count
      bin, count, at = struct.unpack('<dd', packed, at)
      cell.bins[bin] = count
    end
    return cell, at
  end
  unpack_cell = function(bytes)
    local cell = {struct.unpack('<ddd', bytes)}
    if cell[2] == 0 then return nil end
    cell.bins = {}
    for bin = 0, entries - 1 do
      local count = struct.unpack('<I4', bytes, HEAD + 1 + bin * 4)
      if count > 0 then cell.bins[bin] = count end
    end
    return cell
  end
  pack_cell = function(cell)
    local parts = {struct.pack('<ddd', cell[1], cell[2], cell[3])}
    for bin = 0, entries - 1 do
      parts[bin + 2] = struct.pack('<I4', cell.bins[bin] or 0)
    end
    local packed = table.concat(parts)
    return packed .. string.rep('\0', size - #packed)
  end
  merge_cells = function(a, b)
    local merged = {}
    for bin, count in pairs(a.bins) do merged[bin] = count end
    for bin, count in pairs(b.bins) do merged[bin] = (merged[bin] or 0) + count end
    return {math.max(a[1], b[1]), a[2] + b[2], math.max(a[3], b[3]), bins = merged}
  end
end

local function read(key, cell)
  local bytes = redis.call('GETRANGE', key, cell * size, cell * size + size - 1)
  return #bytes == size and unpack_cell(bytes) or nil
end

local function write(key, cell, held, new)
  redis.call('SETRANGE', key, cell * size, pack_cell(held and merge_cells(held, new) or new))
end

-- Make room for a mark. SETRANGE lets a string grow by as much again as it holds, for further growth; what is made in
-- one piece takes what it needs.
local function reserve(key, needed)
  local room = marks + math.ceil((needed - marks) / MARKS) * MARKS
  local held = redis.call('GET', key)
  if held then
    redis.call('SET', key, held .. string.rep('\0', room - #held))
  else
    redis.call('SETRANGE', key, room - 1, '\0')
  end
end

-- The stem of a stretch: the tile as it is in the ring.
local function stem_of(key, tile)
  local slot = tile % slots
  local bytes = redis.call('GETRANGE', key, slot * size, slot * size + size - 1)
  if #bytes < size then return struct.pack('<d', 0) end
  local held, count = struct.unpack('<dd', bytes)
  if held ~= tile or count == 0 then return struct.pack('<d', 0) end
  return struct.pack('<d', size) .. bytes
end

-- The newest tile that the events of a stretch lie in, or the given one.
local function newest_tile(stretch, tile)
  local stem = struct.unpack('<d', stretch)
  for at = 9 + stem, #stretch, EVENT do
    local time = struct.unpack('<d', stretch, at)
    tile = math.max(tile, (time - math.fmod(time, hop)) / hop)
  end
  return tile
end

-- Forget what a tail holds but for its newest tile, or the given one.
local function forget(tail, tile)
  local bytes = redis.call('GET', tail)
  if not bytes then return tile end
  redis.call('DEL', tail)
  return newest_tile(string.sub(bytes, struct.unpack('<d', bytes) + 1), tile)
end

-- Add events to a tail, the newest of them in a tile; the ring does not have them yet.
local function lengthen(tail, key, tile, events)
  local length = redis.call('APPEND', tail, events)
  if length == #events then
    redis.call('SET', tail, struct.pack('<d', 8) .. stem_of(key, tile) .. events)
  elseif length > 16 + stretch_events * EVENT then
    local newer = struct.unpack('<d', redis.call('GETRANGE', tail, 0, 7))
    local stem = struct.unpack('<d', redis.call('GETRANGE', tail, newer, newer + 7))
    if length - newer - 8 - stem > stretch_events * EVENT then
      local full = redis.call('GETRANGE', tail, newer, length - #events - 1)
      local head = struct.pack('<d', 8 + #full)
      redis.call('SET', tail, head .. full .. stem_of(key, newest_tile(full, tile)) .. events)
    end
  end
end

local late = 0

-- Merge some of a tally's cells into a ring, or only read over them; where the next number stands.
local function merge(key, packed, at, known)
  local cells
  cells, at = struct.unpack('<d', packed, at)
  for _ = 1, cells do
    local new
    new, at = read_tally(packed, at)
    if not known then
      local slot = new[1] % slots
      local held = read(key, slot)
      if not held or held[1] == new[1] then
        write(key, slot, held, new)
      elseif held[1] < new[1] then
        if has_base then write(key, slots, read(key, slots), held) end
        write(key, slot, nil, new)
      else
        late = late + new[2]
        if has_base then write(key, slots, read(key, slots), new) end
      end
    end
  end
  return at, cells
end

for i = 1, rings do
  local key, tail = KEYS[i], KEYS[rings + i]
  local packed = ARGV[i + GIVEN]
  local at = 1
  while at <= #packed do
    local place, mark, before, tile, latest
    place, mark, at = struct.unpack('<dd', packed, at)
    place = marks + place * 8
    local stored = redis.call('GETRANGE', key, place, place + 7)
    if #stored < 8 then reserve(key, place + 8) end
    local known = #stored == 8 and struct.unpack('<d', stored) >= mark
    at, before = merge(key, packed, at, known)
    tile, latest, at = struct.unpack('<dd', packed, at)
    local events = string.sub(packed, at, at + latest * EVENT - 1)
    if not known then
      if before > 0 then tile = forget(tail, tile) end
      lengthen(tail, key, tile, events)
    end
    at = merge(key, packed, at + latest * EVENT, known)
    if not known then redis.call('SETRANGE', key, place, struct.pack('<d', mark)) end
  end
  if ttl > 0 then redis.call('PEXPIRE', key, ttl) end
  redis.call('PEXPIRE', tail, tail_ttl)
end
return late
