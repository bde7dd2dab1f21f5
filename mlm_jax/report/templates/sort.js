document.querySelectorAll('.sortable th').forEach(head => head.addEventListener('click', () => {
  const table = head.closest('table'), value = row => row.cells[head.cellIndex].dataset.value;
  const up = head.ariaSort !== 'ascending';
  table.querySelectorAll('th').forEach(other => { other.ariaSort = null; });
  head.ariaSort = up ? 'ascending' : 'descending';
  [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)], n = Number(x) - Number(y);
    if (x === '' || y === '') return (x === '') - (y === ''); // what is missing comes last
    return (Number.isNaN(n) ? x.localeCompare(y) : n) * (up ? 1 : -1);
  }).forEach(row => table.tBodies[0].append(row));
}));
