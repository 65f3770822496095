/* A library that nothing links to. */
int library_function(void)
{
	return 42;
}
