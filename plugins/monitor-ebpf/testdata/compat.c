/* Makes one call of the 32-bit table: getpid. */
int main(void)
{
	int nr = 20;

	asm volatile("int $0x80" : "+a"(nr));
	return nr < 0;
}
