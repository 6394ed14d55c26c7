-- Merges tallies into rings. Byte layouts: of a ring in services/feature_service/domain/rings.py, of a cell in
-- contender/features/layouts, of a tally in services/feature_service/domain/tallies.py.
-- KEYS: rings. ARGV[1]: layout; ARGV[2]: slots of each ring; ARGV[3]: bytes of a cell; ARGV[4]: entries of a cell;
-- ARGV[5]: '1' where a base cell follows the slots; ARGV[6]: milliseconds until a ring that is left alone expires, 0:
-- never; ARGV[i + 6]: the packed tallies for KEYS[i].
-- Returns the number of late events: their slot holds a newer tile.
local layout = ARGV[1]
local slots = tonumber(ARGV[2])
local size = tonumber(ARGV[3])
local entries = tonumber(ARGV[4])
local has_base = ARGV[5] == '1'
local ttl = tonumber(ARGV[6])
local FIRST_TALLIES = 7
local marks = (has_base and slots + 1 or slots) * size
local NONE = 2
local HEAD = 24
local MARKS = 128 -- bytes, MARKS_BYTES of the layouts: marks are made 16 at a time

-- A cell as a table: tile, count, last_time and what its layout has. nil: empty.
local unpack_cell, pack_cell, merge_cells, read_tally

-- Merges two cells, by layout: layouts with a fixed list of fields.
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
      local left, right = a.pairs[i], b.pairs[j]
      if not right or (left and (left[1] > right[1] or (left[1] == right[1] and left[2] >= right[2]))) then
        merged[#merged + 1] = left
        i = i + 1
      else
        merged[#merged + 1] = right
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
      local left, right = a.hashes[i], b.hashes[j]
      if left == right then
        j = j + 1
      elseif not right or (left and left < right) then
        merged[#merged + 1] = left
        i = i + 1
      else
        merged[#merged + 1] = right
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

-- Make room for a mark. SETRANGE reserves as much again as a growing string holds; a string that is set whole takes
-- what it needs.
local function reserve(key, needed)
  local room = marks + math.ceil((needed - marks) / MARKS) * MARKS
  local held = redis.call('GET', key)
  if held then
    redis.call('SET', key, held .. string.rep('\0', room - #held))
  else
    redis.call('SETRANGE', key, room - 1, '\0')
  end
end

local late = 0

-- Merge a new cell into its slot of a ring; a cell of an older tile than the slot's goes to the base.
local function merge(key, new)
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

for i, key in ipairs(KEYS) do
  local packed = ARGV[FIRST_TALLIES + i - 1]
  local at = 1
  while at <= #packed do
    local index, mark, cells, new
    index, mark, cells, at = struct.unpack('<ddd', packed, at)
    local offset = marks + index * 8
    local stored = redis.call('GETRANGE', key, offset, offset + 7)
    if #stored < 8 then reserve(key, offset + 8) end
    local known = #stored == 8 and struct.unpack('<d', stored) >= mark
    for _ = 1, cells do
      new, at = read_tally(packed, at)
      if not known then merge(key, new) end
    end
    if not known then redis.call('SETRANGE', key, offset, struct.pack('<d', mark)) end
  end
  if ttl > 0 then redis.call('PEXPIRE', key, ttl) end
end
return late
